"""The fence between leases and those who hold old tokens."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from socketpool.credentials.fence import Fence, Tenure

if TYPE_CHECKING:
    from pathlib import Path


def test_only_the_generation_that_was_admitted_is_admitted(tmp_path: Path) -> None:
    with closing(Fence.create(tmp_path / "fence")) as fence:
        fence.admit([2000, 65535], 7)
        assert [fence.admits(port, 7) for port in (1999, 2000, 2001, 65535)] == [0, 1, 0, 1]
        assert not any(fence.admits(2000, other) for other in (0, 6, 8, 2**63, -1))
        fence.bar([2000])
        assert not fence.admits(2000, 7)
        assert not fence.admits(2000, 0), "nothing holds a port that nothing holds"


def test_readers_in_other_processes_see_the_end_at_once(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from socketpool.credentials.fence import *;"
        "held = Tenure(Fence.open(pathlib.Path(sys.argv[1])), 2000, 7);"
        "print(held.lasts(), flush=True); sys.stdin.readline(); print(held.lasts(), flush=True)"
    )
    with closing(Fence.create(tmp_path / "fence")) as fence:
        fence.admit([2000], 7)
        reader = subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "fence"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            assert reader.stdout.readline() == "True\n"
            fence.bar([2000])
            reader.stdin.write("\n")
            reader.stdin.flush()
            assert reader.stdout.readline() == "False\n"


def test_what_it_holds_outlives_its_writer_and_can_be_cleared(tmp_path: Path) -> None:
    with closing(Fence.create(tmp_path / "fence")) as fence:
        fence.admit(range(2000, 2010), 7)
    with closing(Fence.create(tmp_path / "fence")) as fence:
        assert Tenure(fence, 2003, 7).lasts()
        fence.bar_all_but([2003, 2004])
        assert [p for p in range(1990, 2020) if fence.admits(p, 7)] == [2003, 2004]


def test_readers_can_t_write(tmp_path: Path) -> None:
    Fence.create(tmp_path / "fence").close()
    with closing(Fence.open(tmp_path / "fence")) as fence, pytest.raises(TypeError):
        fence.admit([2000], 1)


def test_it_is_private_and_takes_its_room_at_once(tmp_path: Path) -> None:
    Fence.create(tmp_path / "fence").close()
    found = (tmp_path / "fence").stat()
    assert found.st_mode & 0o777 == 0o600
    assert found.st_blocks * 512 >= found.st_size == 8 * 65536


def test_another_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fence").write_bytes(b"short")
    with pytest.raises(ValueError, match="mmap"):
        Fence.open(tmp_path / "fence")
