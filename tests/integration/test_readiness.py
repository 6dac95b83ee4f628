"""When an instance counts as ready: never because somebody else says so."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.pools import PoolMaker

LATE = """
import os, pathlib, socket, sys, time
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
flag = pathlib.Path(sys.argv[3])
pathlib.Path(str(flag) + ".listening").touch()
while not flag.exists():
    time.sleep(0.02)
if os.fork() == 0:  # what the program started may speak for it
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(os.environ["NOTIFY_SOCKET"])
        sender.send(b"STATUS=warm\\nREADY=1")
        time.sleep(1)
    os._exit(0)
while True:
    listener.accept()[0].close()
"""


def test_a_program_that_notifies_is_ready_only_when_it_says_so(
    new_pool: PoolMaker, tmp_path: Path
) -> None:
    flag = tmp_path / "ready"
    pool = new_pool.start(
        {
            "late": {
                "description": "Listens at once, is ready later.",
                "command": ["{python}", "-c", LATE, "{host}", "{port}", str(flag)],
                "readiness": {"kind": "notify", "start": "60s"},
                "warm": 1,
            }
        },
        ready=False,
    )
    eventually((tmp_path / "ready.listening").exists, "the program")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.connect(str(pool.state / "notify.sock"))
        stranger.send(b"READY=1")
        time.sleep(0.5)  # long enough for a pool that believes it
    assert "pool ready" not in pool.output
    flag.touch()
    pool.await_ready()
    assert [i["state"] for i in pool.instances("late")] == ["idle"]


def test_an_instance_that_said_so_before_is_ready_after_a_restart_of_the_pool_server(
    new_pool: PoolMaker,
) -> None:
    from tests.support.pools import PROBE, ask_probe

    pool = new_pool.start({"probe": PROBE | {"warm": 1}})
    pool.supervisorctl("restart", "pool-server")
    pool.await_idle("probe", 1)
    with pool.leased("probe") as lease:
        assert ask_probe(lease, "echo", text="x") == "x"
