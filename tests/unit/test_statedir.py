"""The state directory: private, and at a path that supervisord can work with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from supervisor.options import UnhosedConfigParser

from socketpool.config.statedir import StateDir
from socketpool.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOCKETPOOL_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCKETPOOL_STATE_DIR", "/env")
    assert StateDir.locate("/given").root == Path("/given")
    assert StateDir.locate().root == Path("/env")


def test_else_it_is_in_the_xdg_state_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert StateDir.locate().root == Path("/home/me/.local/state/socketpool")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert StateDir.locate().root == Path("/state/socketpool")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # to be ignored, says the specification
    assert StateDir.locate().root == Path("/home/me/.local/state/socketpool")


def test_a_relative_path_becomes_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    assert StateDir.locate("x").root == Path("/tmp/x")


@pytest.mark.parametrize("char", [*list("%;[]*?\"'\\\n\r\t\x00\x7f\x1b"), "\u2028", chr(0xDCFF)])
def test_what_an_ini_file_or_supervisord_interprets_is_refused(char: str) -> None:
    with pytest.raises(ConfigError, match="state directory") as caught:
        StateDir.locate(f"/tmp/a{char}b")
    assert "--state-dir" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["a b", "a #b", "a#b", " a", "é", "a=b", "a:b", "a,b", "$x", "{x}"]
)
def test_what_is_accepted_reads_back_as_it_was(name: str) -> None:
    """Either refused, or nothing of it is lost on the way through supervisord's own parser."""
    from socketpool.supervision.conf import main_conf

    try:
        state = StateDir.locate(f"/tmp/{name}/s")
    except ConfigError:
        return
    parser = UnhosedConfigParser()
    parser.read_string(main_conf(state, root=False))
    assert parser.get("unix_http_server", "file") == str(state.supervisor_socket)
    assert parser.get("supervisord", "directory") == str(state.root)


def test_a_path_too_long_for_its_socket_is_refused() -> None:
    longest = 107 - len(".1234567") - len("/supervisor.sock")
    assert StateDir.locate("/" + "x" * (longest - 1)).root
    with pytest.raises(ConfigError, match="too long"):
        StateDir.locate("/" + "x" * longest)
    with pytest.raises(ConfigError, match="too long"):
        StateDir.locate("/" + "é" * (longest // 2 + 1))


def test_the_home_of_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match="no-such-user-here"):
        StateDir.locate("~no-such-user-here/state")


@pytest.mark.usefixtures("open_umask")
def test_everything_in_it_is_private(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "deep" / "s")
    state.prepare()
    folders = [state.root, *(path for path in state.root.iterdir() if path.is_dir())]
    assert len(folders) == 8
    assert {f.stat().st_mode & 0o777 for f in folders} == {0o700}


def test_a_directory_with_files_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "notes.txt").write_text("mine")
    tmp_path.chmod(0o755)
    with pytest.raises(ConfigError, match="not a pool's"):
        StateDir(tmp_path).prepare()
    assert (tmp_path / "services" / "notes.txt").read_text() == "mine"
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_state_directory_is_taken_again_whatever_a_run_before_left(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "s")
    state.prepare()
    (state.root / "leases.sqlite").write_bytes(b"")
    state.prepare()


def test_a_directory_open_to_others_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    StateDir(tmp_path).prepare()
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_preparing_again_keeps_what_is_there(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    state.prepare()
    state.token.write_text("x")
    state.prepare()
    assert state.token.read_text() == "x"


def test_a_file_in_the_way_is_reported(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("")
    with pytest.raises(ConfigError, match="File exists"):
        StateDir(tmp_path / "s").prepare()


def test_a_place_where_nothing_can_be_made_is_reported() -> None:
    with pytest.raises(ConfigError, match="/proc/s"):
        StateDir(Path("/proc/s")).prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to another user"):
        StateDir(tmp_path).prepare()


def test_root_s_directory_is_refused() -> None:
    pid = os.fork()
    if pid == 0:  # in a process of its own, since root would have to become somebody else for good
        status = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            StateDir(Path("/etc")).prepare()
        except ConfigError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
