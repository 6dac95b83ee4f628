"""Nothing is sent to another account's program that listens where a pool should (run by root)."""

from __future__ import annotations

import os
import socket
import zipfile
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from socketpool.client.api import PoolClient
from socketpool.client.peeraccount import account_uid, check_peer, usual_accounts
from socketpool.errors import WrongListener
from tests.support.pools import PROBE, clean_environment, run_tool
from tests.support.thieves import NAME, await_loot, thief

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.pools import PoolMaker

TOKEN = "token-" + "t" * 40


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


POOL_COMMANDS = {
    "leases": ("leases",),
    "status": ("status",),
    "lease": ("lease", "web"),
    "renew": ("renew", "abc"),
    "release": ("release", "abc"),
    "reload": ("reload",),
    "drain": ("drain", "web"),
    "run": ("run", "web", "--", "true"),
}


@pytest.mark.parametrize("command", POOL_COMMANDS)
def test_no_command_shows_the_token_to_another_account(
    tmp_path: Path, token_file: Path, command: str
) -> None:
    words = list(POOL_COMMANDS[command])
    with thief(tmp_path) as found:
        at = ("--pool", f"127.0.0.1:{found.port}", "--token-file", token_file)
        told = run_tool("socketpool", words[0], *at, *words[1:])
        assert found.loot == b""
    assert told.returncode == 5, told.stderr
    assert f"the account {NAME} listens at 127.0.0.1 port {found.port}" in told.stderr
    assert f"--pool-account {NAME}" in told.stderr


@pytest.mark.parametrize("does", ["accepts", "waits", "answers"])
def test_the_main_job_sends_nothing_to_another_account(
    tmp_path: Path, token_file: Path, does: str
) -> None:
    (tmp_path / "a.txt").write_text("secret member")
    with thief(tmp_path, does=does) as found:
        told = run_tool(
            *("socketpool_client", "127.0.0.1", found.port, tmp_path / "a.txt"),
            *("upload", "vendor", "download", "--token-file", token_file),
        )
        assert found.loot == b""
    assert told.returncode == 5, told.stderr


def test_a_step_shows_no_lease_token_to_another_account(tmp_path: Path, token_file: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("index.html", "<p>secret member</p>")
    with thief(tmp_path) as found:
        for name in ("vendor_client", "uploader_client"):
            told = run_tool(
                *(name, "127.0.0.1", found.port, tmp_path / "a.zip", "--lease", token_file),
                *("--state-dir", tmp_path / "none"),
            )
            assert told.returncode == 5, told.stderr
        assert found.loot == b""


@pytest.mark.parametrize("by", ["option", "variable"])
def test_an_account_that_the_user_names_is_believed(
    tmp_path: Path, token_file: Path, by: str
) -> None:
    environment = clean_environment(tmp_path)
    option: tuple[str, ...] = ()
    if by == "option":
        option = ("--pool-account", NAME)
    else:
        environment["SOCKETPOOL_POOL_ACCOUNT"] = NAME
    with thief(tmp_path, does="answers") as found:
        at = ("--pool", f"127.0.0.1:{found.port}", "--token-file", token_file)
        told = run_tool("socketpool", "leases", *at, *option, env=environment)
        assert told.returncode == 0, told.stderr
        assert TOKEN.encode() in found.loot


def test_an_account_that_does_not_exist_is_said(token_file: Path) -> None:
    at = ("--pool", "127.0.0.1:1", "--token-file", token_file)
    told = run_tool("socketpool", "leases", *at, "--pool-account", "no-such-account")
    assert told.returncode == 2
    assert "no-such-account" in told.stderr


def test_the_owner_of_the_token_s_file_is_believed(tmp_path: Path, token_file: Path) -> None:
    os.chown(token_file, account_uid(NAME), -1)
    with thief(tmp_path, does="answers") as found:
        at = ("--pool", f"127.0.0.1:{found.port}", "--token-file", token_file)
        told = run_tool("socketpool", "leases", *at)
    assert told.returncode == 0, told.stderr


def test_a_renewal_in_the_gap_of_a_restart_shows_nothing_to_who_took_the_port(
    new_pool: PoolMaker, tmp_path: Path
) -> None:
    pool = new_pool.start({"probe": PROBE | {"warm": 1, "max": 1}})
    client = pool.client()
    lease = client.acquire(["probe"], ttl=300)
    pool.supervisorctl("stop", "pool-server")
    with thief(tmp_path, pool.port) as found:
        for act in (client.renew, client.release):
            with pytest.raises(WrongListener, match=NAME):
                act(lease.id)
        assert found.loot == b""
    pool.supervisorctl("start", "pool-server")
    pool.await_server()
    assert client.renew(lease.id) > 0
    client.release(lease.id)


def test_a_listener_that_is_swapped_after_the_connection_is_not_believed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        found = stack.enter_context(thief(tmp_path, does="leaves"))
        place = ("127.0.0.1", found.port)
        connection = stack.enter_context(socket.create_connection(place))
        connection.sendall(b"x")
        await_loot(found)  # so it was accepted, and its listener is closed
        stack.enter_context(socket.create_server(place))
        with pytest.raises(WrongListener):
            check_peer(connection, usual_accounts())


def test_the_library_refuses_too(tmp_path: Path) -> None:
    with thief(tmp_path) as found, closing(PoolClient("127.0.0.1", found.port, TOKEN)) as client:
        with pytest.raises(WrongListener):
            client.leases()
        assert found.loot == b""
