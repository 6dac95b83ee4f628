"""Who listens where, and who does nothing, as the kernel tells it."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from socketpool.system.listeners import Listeners, is_stopped
from socketpool.system.processes import child_of
from tests.support.waiting import eventually

GRANDCHILD = """
import os, socket, sys, time
if os.fork():
    os.wait()
else:
    s = socket.create_server(("127.0.0.1", 0))
    print(s.getsockname()[1], os.getpid(), flush=True)
    sys.stdin.read()
"""


def test_a_listener_belongs_to_its_process_and_to_its_ancestors() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GRANDCHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        port, pid = map(int, parent.stdout.readline().split())
        found = Listeners()
        assert found.owned(port, pid)
        assert found.owned(port, parent.pid)
        with subprocess.Popen(["sleep", "1000"]) as sibling:
            assert not found.owned(port, sibling.pid)
            sibling.kill()
        assert child_of(os.getpid(), pid) == parent.pid
        assert child_of(parent.pid, pid) == pid
        assert child_of(pid, parent.pid) == 0
        parent.stdin.close()


def test_only_who_listens_counts_and_each_family_does() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket() as bound,
        socket.create_connection(listener.getsockname()) as connected,
    ):
        bound.bind(("127.0.0.1", 0))
        found = Listeners()
        ports = found.ports()
        assert listener.getsockname()[1] in ports
        assert bound.getsockname()[1] not in ports
        assert connected.getsockname()[1] not in ports
        assert not found.owned(bound.getsockname()[1], os.getpid())
        if Path("/proc/net/if_inet6").exists():
            with socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
                assert Listeners().owned(six.getsockname()[1], os.getpid())


def test_a_foreign_listener_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (one,) = Listeners().foreign([port, 1])
        assert (one.port, one.pid) == (port, os.getpid())
        assert one.program == psutil.Process().name()
    assert Listeners().foreign([port]) == []


def test_a_process_with_a_file_too_deep_to_be_named_does_not_hide_the_listeners(
    tmp_path: Path,
) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):  # relative, since the whole path is too long for any call
        os.mkdir("d" * 200, dir_fd=folder)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    try:
        with pytest.raises(OSError, match="too long"):
            Path(f"/proc/self/fd/{folder}").readlink()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            assert Listeners().owned(port, os.getpid())
            (one,) = Listeners().foreign([port])
            assert one.pid == os.getpid()
    finally:
        os.close(folder)


def test_without_descriptors_nobody_is_said_not_to_listen() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Listeners()
        lowest_free = os.dup(listener.fileno())
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                Listeners()
            with pytest.raises(OSError, match="Too many open files"):
                found.owned(listener.getsockname()[1], os.getpid())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_process_is_stopped_between_sigstop_and_sigcont() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]) as process:
        assert not is_stopped(process.pid)
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: is_stopped(process.pid), "to be stopped")
        process.send_signal(signal.SIGCONT)
        eventually(lambda: not is_stopped(process.pid), "to go on")
        process.kill()
    assert not is_stopped(process.pid), "it is no more"
