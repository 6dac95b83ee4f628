"""Where the client finds the API token, and whom it shows it to."""

from __future__ import annotations

import fcntl
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from socketpool.client.apitoken import find_access, local_address
from socketpool.config.statedir import StateDir
from socketpool.errors import ConfigError, NotAuthorised, PoolUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SOCKETPOOL_STATE_DIR", "SOCKETPOOL_TOKEN_FILE", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


class Pretender(BaseHTTPRequestHandler):
    """Answers as a pool server's health check does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "13")
        self.end_headers()
        self.wfile.write(b'{"live":true}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    """Something like a pool server listens there, on every loopback address."""
    with HTTPServer(("0.0.0.0", 0), Pretender) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("local-token-of-the-pool\n")
    return tmp_path


@pytest.fixture
def running(state: Path) -> Iterator[None]:
    """What a server does for as long as it runs."""
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pool_at(state: Path, listen: str) -> None:
    (state / "pool.json").write_text(json.dumps({"listen": listen}))


def find(host: str, port: int, state: Path, file: str | None = None) -> str:
    return find_access(host, port, file=file, state_dir=str(state)).token


def test_who_has_the_port_of_a_pool_that_has_stopped_is_not_shown_its_token(
    state: Path, port: int
) -> None:
    pool_at(state, f"127.0.0.1:{port}")
    (state / "lock").touch()
    with pytest.raises(NotAuthorised):
        find("127.0.0.1", port, state)


@pytest.mark.usefixtures("running")
def test_the_pool_of_this_account_is_shown_its_token(state: Path, port: int) -> None:
    pool_at(state, f"127.0.0.1:{port}")
    assert find("127.0.0.1", port, state) == "local-token-of-the-pool"
    access = find_access("localhost", port, file=None, state_dir=str(state))
    assert access[:2] == ("local-token-of-the-pool", "127.0.0.1"), "and not shown at ::1"


@pytest.mark.usefixtures("running")
def test_a_pool_on_all_addresses_is_shown_it_at_each(state: Path, port: int) -> None:
    pool_at(state, f"0.0.0.0:{port}")
    assert find("127.0.0.1", port, state) == "local-token-of-the-pool"
    assert find("127.0.0.2", port, state) == "local-token-of-the-pool"


@pytest.mark.parametrize("host", ["127.0.0.2", "127.1.2.3"])
def test_somebody_else_at_another_address_of_this_machine_is_not(
    state: Path, port: int, host: str
) -> None:
    """Any user of this machine may listen there on the pool's port."""
    pool_at(state, f"127.0.0.1:{port}")
    with pytest.raises(NotAuthorised, match=host):
        find(host, port, state)


def test_somebody_else_at_another_port_is_not(state: Path, port: int) -> None:
    pool_at(state, f"127.0.0.1:{port + 1 if port < 65535 else port - 1}")
    with pytest.raises(NotAuthorised) as caught:
        find("127.0.0.1", port, state)
    assert "SOCKETPOOL_TOKEN_FILE" in caught.value.hint
    assert "local-token-of-the-pool" not in str(caught.value)


def test_another_machine_is_not(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """192.0.2.1 is for documentation: nobody has it.  The token must not even be read."""
    pool_at(state, "192.0.2.1:8080")
    (state / "token").unlink()
    (state / "token").mkdir()
    monkeypatch.setattr("socketpool.client.dial.CONNECT_SECONDS", 0.2)
    with pytest.raises(PoolUnreachable, match=r"192\.0\.2\.1"):
        find("192.0.2.1", 8080, state)


def test_a_named_file_wins(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (state / "given").write_text("given-token-of-somebody")
    (state / "env").write_text("env-token-of-somebody")
    monkeypatch.setenv("SOCKETPOOL_TOKEN_FILE", str(state / "env"))
    assert find("192.0.2.1", 1, state) == "env-token-of-somebody"
    assert find("192.0.2.1", 1, state, str(state / "given")) == "given-token-of-somebody"


@pytest.mark.parametrize("name", ["absent", "~no-such-user-here/token", "empty"])
def test_a_named_file_without_a_token_is_an_error(state: Path, name: str) -> None:
    (state / "empty").write_text("\n")
    with pytest.raises(ConfigError):
        find("127.0.0.1", 1, state, name if name.startswith("~") else str(state / name))


def test_nobody_there_is_the_more_useful_thing_to_say(state: Path, port: int) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        free = closed.getsockname()[1]
        with pytest.raises(PoolUnreachable, match="nothing listens"):
            find("127.0.0.1", free, state)


def test_a_name_that_stands_for_nothing_is_unreachable(state: Path) -> None:
    pool_at(state, "nowhere.invalid:8080")
    with pytest.raises(PoolUnreachable, match="can't be resolved"):
        find("nowhere.invalid", 8080, state)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"listen": "x"}', '{"listen": 5}', "null", '"listen"']
)
def test_a_damaged_pool_file_tells_no_address(state: Path, content: str) -> None:
    (state / "pool.json").write_text(content)
    assert local_address(StateDir(state)) is None


def test_the_address_is_read_as_it_was_written(state: Path) -> None:
    pool_at(state, "[::1]:8080")
    assert local_address(StateDir(state)) == ("::1", 8080)


def test_what_answers_but_is_no_pool_is_said_to_be_none(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(PoolUnreachable, match="does not answer as a pool server"):
            find("127.0.0.1", listener.getsockname()[1], state)
        thread.join()
