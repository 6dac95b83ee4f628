"""supervisord's configuration: nothing that a pool is told can inject into it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from supervisor.options import UnhosedConfigParser

from socketpool.config.statedir import StateDir
from socketpool.config.values import check_service_name
from socketpool.errors import ConfigError
from socketpool.supervision.conf import (
    block_conf,
    block_name,
    install,
    main_conf,
    parse_instance,
)

STATE = StateDir(Path("/var/lib/pool"))


def parsed(text: str) -> UnhosedConfigParser:
    """As supervisord itself reads it."""
    parser = UnhosedConfigParser()
    parser.read_string(text)
    return parser


def test_supervisord_listens_on_a_private_unix_socket_only() -> None:
    parser = parsed(main_conf(STATE, root=False))
    assert parser.get("unix_http_server", "file") == "/var/lib/pool/supervisor.sock"
    assert parser.get("unix_http_server", "chmod") == "0700"
    assert not parser.has_section("inet_http_server")
    assert parser.get("supervisord", "umask") == "077"


def test_everything_is_in_the_state_directory() -> None:
    parser = parsed(main_conf(STATE, root=False) + block_conf(STATE, "up", "up", range(2000, 2002)))
    paths = [
        value
        for section in parser.sections()
        for key, value in parser.items(section)
        if key in {"file", "logfile", "pidfile", "childlogdir", "directory", "stdout_logfile"}
    ]
    assert len(paths) == 7
    assert all(Path(path).is_relative_to(STATE.root) for path in paths)


def test_a_user_is_named_for_root_alone() -> None:
    assert parsed(main_conf(STATE, root=True)).get("supervisord", "user") == "root"
    assert not parsed(main_conf(STATE, root=False)).has_option("supervisord", "user")


def test_the_process_numbers_of_a_block_are_its_ports() -> None:
    parser = parsed(block_conf(STATE, "up.2", "up", range(2000, 2005)))
    assert parser.sections() == ["program:up.2"]
    program = dict(parser.items("program:up.2"))
    assert (program["numprocs"], program["numprocs_start"]) == ("5", "2000")
    assert program["process_name"] == "%(process_num)d"
    command = shlex.split(program["command"])
    assert command[0] == sys.executable
    assert command[-2:] == ["/var/lib/pool/services/up.json", "%(process_num)d"]
    assert (program["stopasgroup"], program["killasgroup"]) == ("true", "true")


@given(st.text(max_size=30), st.text("abcxyz019-._: %;[]\n\\'\"#=é{}", max_size=12))
def test_no_accepted_path_or_name_breaks_out_of_its_line(folder: str, name: str) -> None:
    try:
        state = StateDir.locate("/" + folder)
        name = check_service_name(name)
    except ConfigError:
        return
    except ValueError:
        name = "svc"
    main = parsed(main_conf(state, root=False))
    assert main.sections() == [
        "unix_http_server",
        "supervisord",
        "rpcinterface:supervisor",
        "supervisorctl",
        "program:pool-server",
        "include",
    ]
    assert main.get("unix_http_server", "file") == str(state.supervisor_socket)
    assert shlex.split(main.get("program:pool-server", "command"))[-1] == str(state.root)
    block = parsed(block_conf(state, name, name, range(2000, 2001)))
    assert block.sections() == [f"program:{name}"]
    assert shlex.split(block.get(f"program:{name}", "command"))[-2] == str(
        state.services / f"{name}.json"
    )


@pytest.mark.parametrize(("number", "name"), [(1, "up"), (2, "up.2"), (17, "up.17")])
def test_a_block_and_its_port_tell_the_instance(number: int, name: str) -> None:
    assert block_name("up", number) == name
    assert parse_instance(name, "21000") == ("up", number, 21000)


@pytest.mark.parametrize(
    ("group", "process"),
    [
        ("pool-server", "pool-server"),
        ("up.x", "21000"),
        ("up", "up_21000"),
        ("up.2.3", "1"),
        ("", ""),
    ],
)
def test_what_an_operator_added_is_not_taken_for_an_instance(group: str, process: str) -> None:
    assert parse_instance(group, process) is None


def test_a_file_is_installed_whole_under_its_name_only(tmp_path: Path) -> None:
    install(tmp_path / "a.conf", "one")
    install(tmp_path / "a.conf", "two")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.conf": "two"}
