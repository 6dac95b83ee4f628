"""Vendors that leave their directory, by accident or not: refused, or harmless to everybody else.

They run as the pool's account, so the kernel lets them write wherever that may; what is shown here
is that nothing of ours follows what they leave behind.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from socketpool.errors import ArchiveError, ServiceFailed
from socketpool.protocol.blocks import send_file_block
from socketpool.protocol.filesource import OpenFile
from socketpool.protocol.session import await_event
from socketpool.rsi.tree import PATH_BYTES
from tests.support.archives import canonical
from tests.support.pools import PoolMaker, run_tool, session, shipped
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.pools import RunningPool

NEIGHBOUR = 'for d in ../../*/; do [ "$d" -ef .. ] || neighbour=$(cd "$d"; pwd -P); done\n'
"""The workspace of another lease, as a vendor that looks around finds it."""

# What it does, the exit code of the client, and what that is told.
PROGRAMS = {
    "links-a-member": ("ln -sf $neighbour/incoming.zip a.html", 7, "deleted"),
    "links-the-tree": ("mv deep elsewhere; ln -s $neighbour deep", 7, "added"),
    "adds-a-link": ("ln -s $neighbour escape", 7, "added"),
    "hides-a-link-above": ("ln -s $neighbour ../escape", 0, ""),
    "hides-a-link-as-its-step": ("ln -s $neighbour ../step-9999-1.zip", 7, "failed unexpectedly"),
    "makes-a-pipe": ("rm a.html; mkfifo a.html", 7, "deleted"),
    "makes-a-device": ("rm a.html; mknod a.html c 1 5 || mkfifo a.html", 7, "deleted"),
    "writes-above": ("echo x >../evil; echo x >../../evil; mkdir ../deep", 0, ""),
    "replaces-its-directory": ("cd ..; rm -r members; ln -s $neighbour members", 7, "added"),
    "removes-its-directory": ("cd ..; rm -r members", 7, "failed unexpectedly"),
    "removes-its-workspace": ("cd ../..; rm -r ${OLDPWD%/members}", 7, "failed unexpectedly"),
    "locks-itself-in": ("mkdir shut; touch shut/in; chmod 0 shut .", 7, "added"),
    "links-hard": ("ln -f ../incoming.zip a.html; ln ../incoming.zip b.html", 7, "added"),
}

CLASSES = {
    "class-links": "path.unlink(); path.symlink_to(neighbour / 'incoming.zip')",
    "class-links-hard": "path.unlink(); path.hardlink_to(self.workspace.incoming)",
    "class-makes-a-pipe": "path.unlink(); os.mkfifo(path)",
    "class-adds": "(path.parent / '..x').symlink_to(neighbour); (path.parent / 'y').mkdir()",
    "class-writes-above": "(self.workspace.root / 'evil').symlink_to(neighbour)",
}

CLASS = """
import os
from socketpool.rsi import VendorServer

class Vendor(VendorServer):
    def transfer(self):
        root = self.workspace.root
        (neighbour,) = [p for p in root.parent.iterdir() if p.is_dir() and p != root]
        path = self.members["a.html"]
        {does}
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[RunningPool]:
    services = {name: shipped(name) | {"max": 2} for name in ("upload", "download")}
    for name, (script, _, _) in PROGRAMS.items():
        sdk = {"executable": ["sh", "-ec", NEIGHBOUR + script]}
        services[name] = {"description": name, "sdk": sdk, "client": "vendor", "warm": 0}
    for name, does in CLASSES.items():
        services[name] = shipped("vendor", CLASS.format(does=does)) | {"warm": 0}
    with PoolMaker() as maker:
        yield maker.start(services)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "site.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a.html", "small letters\n")
        out.writestr("deep/b.html", "more of them\n")
    return path


@pytest.fixture
def neighbour(pool: RunningPool, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Another client's lease, with its work in it."""
    theirs = tmp_path / "theirs.zip"
    theirs.write_bytes(canonical({b"a.html": b"of somebody else", b"deep/b.html": b"this too"}))
    with pool.leased("upload", "download") as lease:
        upload(lease, theirs)
        yield lease


def upload(lease: dict[str, Any], archive: Path) -> None:
    with session(lease, "upload") as stream, archive.open("rb") as file:
        send_file_block(stream, OpenFile(file.fileno(), archive.stat().st_size))
        await_event(stream, "done")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def run(pool: RunningPool, archive: Path, vendor: str) -> tuple[int, str]:
    done = run_tool(
        *("socketpool_client", pool.host, pool.port, archive, "upload", vendor, "download"),
        *("--state-dir", pool.state),
    )
    return done.returncode, done.stderr


def assert_only_the_neighbour_is_left(
    pool: RunningPool, lease: dict[str, Any], before: dict[str, bytes]
) -> None:
    assert_nothing_but_stray_files(pool, lease["lease"])
    assert contents(pool.state / "workspaces" / lease["lease"]) == before


def assert_nothing_but_stray_files(pool: RunningPool, *leases: str) -> None:
    """What a vendor wrote beside the workspaces goes when the pool is next started."""
    eventually(lambda: not list((pool.state / "trash").iterdir()), "the trash to be emptied")
    assert [p.name for p in (pool.state / "workspaces").iterdir() if p.is_dir()] == [*leases]


@pytest.mark.parametrize("vendor", PROGRAMS)
def test_a_program_that_leaves_its_directory_hurts_no_other_lease(
    pool: RunningPool, archive: Path, neighbour: dict[str, Any], vendor: str
) -> None:
    before, original = (
        contents(pool.state / "workspaces" / neighbour["lease"]),
        archive.read_bytes(),
    )
    _, expected, said = PROGRAMS[vendor]
    code, errors = run(pool, archive, vendor)
    assert (code, said in errors) == (expected, True), errors
    assert archive.read_bytes() == original, "nothing that it made came back"
    assert_only_the_neighbour_is_left(pool, neighbour, before)


def test_members_as_deep_as_a_name_can_be_are_wiped_like_any_others(
    pool: RunningPool, tmp_path: Path
) -> None:
    """Deeper than calls may be nested: what wipes them must not end for that."""
    deep = tmp_path / "deep.zip"
    with pool.leased("upload", "locks-itself-in") as lease:
        place = pool.state / "workspaces" / lease["lease"] / "members"
        levels = (PATH_BYTES - len(str(place)) - 2) // 2
        deep.write_bytes(canonical({b"a.html": b"", b"d/" * levels + b"x": b"deep"}))
        upload(lease, deep)
        with pytest.raises(ServiceFailed), session(lease, "locks-itself-in") as stream:
            await_event(stream, "done")
        assert place.exists()
    assert_nothing_but_stray_files(pool)
    with pool.leased("upload", "locks-itself-in") as lease:
        deep.write_bytes(canonical({b"a.html": b"", b"d/" * levels + b"xyz": b"too deep"}))
        upload(lease, deep)
        with (
            pytest.raises(ArchiveError, match="can't be a file"),
            session(lease, "locks-itself-in") as stream,
        ):
            await_event(stream, "done")
    assert_nothing_but_stray_files(pool)


@pytest.mark.parametrize("vendor", CLASSES)
def test_a_class_that_leaves_its_files_hurts_no_other_lease(
    pool: RunningPool, archive: Path, neighbour: dict[str, Any], vendor: str
) -> None:
    before = contents(pool.state / "workspaces" / neighbour["lease"])
    code, errors = run(pool, archive, vendor)
    assert code == 0, errors
    with zipfile.ZipFile(archive) as file:
        assert b"of somebody else" not in file.read("a.html")
        assert file.namelist() == ["a.html", "deep/b.html"]
        assert file.read("deep/b.html") == b"more of them\n"
    assert_only_the_neighbour_is_left(pool, neighbour, before)
