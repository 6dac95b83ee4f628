"""Bytes through SSH: our channel and our forwarder against ``ssh -L``, sshtunnel and asyncssh.

All go through one private sshd on loopback to one server, in turns; the second table is the same
through a relay that holds every byte back for 25 ms each way.  Each contestant has a process of its
own.  "CPU s/GB" is what this side uses: of a forwarder, it and a plain client of it; of a channel,
the one process that is both.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from benchmarks.sshd import SSHD, Sshd, private_sshd
from socketpool.config.destination import Destination
from socketpool.system.sockets import listen_on
from socketpool.tunnel.forward import BACKLOG, Forwarder, to_port
from socketpool.tunnel.ssh import open_tunnel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection as Pipe

    from socketpool.client.dial import Connection
    from socketpool.tunnel.reconnect import Tunnel

    Connect = Callable[[], Connection]
    Opened = tuple[Connect, int | None, float]
    """How to connect, the forwarder's process, and seconds that only started an interpreter."""

HOST = "127.0.0.1"
MB = 1_000_000
BLOCK = 1 << 18
ECHO_BYTES = 64
DELAY = 0.025
RELAY_BYTES = 64 << 20
GCM = ("-c", "aes128-gcm@openssh.com")
PEERS_PYTHON = Path(__file__).resolve().parent.parent / ".venv-peers" / "bin" / "python"
BASE, BASE_GCM = "ssh -L", "ssh -L, aes128-gcm"


class Taken(NamedTuple):
    """One measurement, in seconds."""

    wall: float
    cpu: float


# -- the far end ---------------------------------------------------------------------------------


def _serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = b""
        while not request.endswith(b"\n"):
            request += connection.recv(1)
        what, size = request.split()
        buffer = memoryview(bytearray(BLOCK))
        if what == b"up":
            left = int(size)
            while left:
                left -= connection.recv_into(buffer)
            connection.sendall(b"!")
        elif what == b"down":
            for start in range(0, int(size), BLOCK):
                connection.sendall(buffer[: min(BLOCK, int(size) - start)])
        else:
            while count := connection.recv_into(buffer):
                connection.sendall(buffer[:count])


@contextmanager
def _far_end() -> Iterator[int]:
    with socket.create_server((HOST, 0), backlog=BACKLOG) as listener:
        process = multiprocessing.get_context("fork").Process(target=_serve, args=(listener,))
        process.start()
        try:
            yield listener.getsockname()[1]
        finally:
            process.kill()
            process.join()


# -- a longer way --------------------------------------------------------------------------------


@contextmanager
def _delayed(port: int) -> Iterator[int]:
    """A relay to a port that holds every byte back."""
    with socket.create_server((HOST, 0), backlog=BACKLOG) as listener:
        process = multiprocessing.get_context("fork").Process(target=_relay, args=(listener, port))
        process.start()
        try:
            yield listener.getsockname()[1]
        finally:
            process.kill()
            process.join()


def _relay(listener: socket.socket, port: int) -> None:
    while True:
        near, _ = listener.accept()
        far = socket.create_connection((HOST, port))
        for one, other in ((near, far), (far, near)):
            for end in (one, other):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Pipeline(one, other)


class _Pipeline:
    """One direction: what was read is written when its time has come."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self._queue: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._read, args=(source,), daemon=True).start()
        threading.Thread(target=self._write, args=(target,), daemon=True).start()

    def _read(self, source: socket.socket) -> None:
        data = b"start"
        while data:
            try:
                data = source.recv(BLOCK)
            except OSError:
                data = b""
            with self._changed:
                self._changed.wait_for(lambda: self._size < RELAY_BYTES)
                self._queue.append((time.monotonic() + DELAY, data))
                self._size += len(data)
                self._changed.notify_all()

    def _write(self, target: socket.socket) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                due, data = self._queue.popleft()
                self._size -= len(data)
                self._changed.notify_all()
            time.sleep(max(0.0, due - time.monotonic()))
            with suppress(OSError):
                if not data:
                    target.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)


# -- the near end --------------------------------------------------------------------------------


def _up(connect: Connect, size: int) -> None:
    stream = connect()
    block = memoryview(os.urandom(BLOCK))
    stream.sendall(b"up %d\n" % size)
    for start in range(0, size, BLOCK):
        stream.sendall(block[: min(BLOCK, size - start)])
    assert stream.recv(1) == b"!"
    stream.close()


def _down(connect: Connect, size: int) -> None:
    stream = connect()
    stream.sendall(b"down %d\n" % size)
    left = size
    while left:
        left -= len(stream.recv(1 << 20))
    stream.close()


def _together(
    act: Callable[[Connect, int], None], connect: Connect, streams: int, size: int
) -> None:
    threads = [
        threading.Thread(target=act, args=(connect, size // streams)) for _ in range(streams)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _echo(connect: Connect, count: int) -> float:
    """Median seconds of a round trip of 64 bytes."""
    stream = connect()
    stream.sendall(b"echo 0\n")
    block, taken = os.urandom(ECHO_BYTES), []
    for _ in range(count):
        clock = time.perf_counter()
        stream.sendall(block)
        left = ECHO_BYTES
        while left:
            left -= len(stream.recv(left))
        taken.append(time.perf_counter() - clock)
    stream.close()
    return median(taken)


def _near_end(pipe: Pipe, open_it: Callable[[], Opened]) -> None:
    """A contestant's process: opens its way, then does as it is told."""
    clock = time.perf_counter()
    connect, forwarder, started = open_it()
    _echo(connect, 1)
    pipe.send(time.perf_counter() - clock - started)
    helper = psutil.Process(forwarder) if forwarder else None
    while True:
        try:
            what, streams, size = pipe.recv()
        except EOFError:
            os._exit(0)
        before, clock = _cpu(helper), time.perf_counter()
        if what == "echo":
            pipe.send(Taken(_echo(connect, size), 0))
            continue
        _together(_up if what == "up" else _down, connect, streams, size)
        pipe.send(Taken(time.perf_counter() - clock, _cpu(helper) - before))


def _cpu(helper: psutil.Process | None) -> float:
    own = os.times()
    total = own.user + own.system
    if helper is not None:
        times = helper.cpu_times()
        total += times.user + times.system
    return total


class Contestant:
    """A way through SSH in a process of its own."""

    def __init__(self, open_it: Callable[[], Opened]) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_near_end, args=(theirs, open_it))
        self._process.start()
        theirs.close()
        self.set_up: float = self._pipe.recv()

    def measure(self, what: str, streams: int, size: int) -> Taken:
        """Have it do something; of ``echo``, size is how often."""
        self._pipe.send((what, streams, size))
        taken: Taken = self._pipe.recv()
        return taken

    def close(self) -> None:
        """End it, and its forwarder."""
        for child in psutil.Process(self._process.pid).children():
            child.kill()
        self._process.kill()
        self._process.join()


# -- the contestants -----------------------------------------------------------------------------


def _channel(sshd: Sshd, target: int) -> Opened:
    tunnel = _tunnel(sshd)
    return lambda: tunnel.dial(HOST, target), None, 0


def _forwarder(sshd: Sshd, target: int) -> Opened:
    """Ours, in a process of its own as the others are."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        tunnel = _tunnel(sshd)
        listener = listen_on(HOST, 0, BACKLOG)
        Forwarder(listener, to_port(tunnel.dial, HOST, target), print)
        theirs.sendall(b"%d\n" % listener.getsockname()[1])
        while True:
            time.sleep(3600)
    theirs.close()
    with ours.makefile() as answer:
        return _to(int(answer.readline())), pid, 0


def _answers_nothing(prompt: str, *, echo: bool = False) -> None:
    del prompt, echo


def _tunnel(sshd: Sshd) -> Tunnel:
    return open_tunnel(
        Destination.parse("there"),
        config=sshd.config,
        accept_new=False,
        ask=_answers_nothing,
        note=print,
        on_change=lambda _state, _why: None,
    )


def _to(port: int) -> Connect:
    def connect() -> socket.socket:
        stream = socket.create_connection((HOST, port))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream

    return connect


def _openssh(sshd: Sshd, target: int, *options: str) -> Opened:
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        ["ssh", "-F", sshd.config, *options, "-N", "-L", f"{HOST}:{port}:{HOST}:{target}", "there"],
        stdin=subprocess.DEVNULL,
    )
    while socket.socket().connect_ex((HOST, port)):
        time.sleep(0.002)
    return _to(port), process.pid, 0


def _python_peer(name: str, sshd: Sshd, target: int) -> Opened:
    script = Path(__file__).with_name("tunnelpeers.py")
    process = subprocess.Popen(
        [
            PEERS_PYTHON,
            script,
            name,
            sshd.config.parent,
            str(sshd.port),
            str(target),
            str(time.time()),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    port, started = process.stdout.readline().split()
    return _to(int(port)), process.pid, float(started)


def _contestants(sshd: Sshd, target: int) -> dict[str, Callable[[], Opened]]:
    found: dict[str, Callable[[], Opened]] = {
        "our channel": lambda: _channel(sshd, target),
        "our forwarder": lambda: _forwarder(sshd, target),
        BASE: lambda: _openssh(sshd, target),
        BASE_GCM: lambda: _openssh(sshd, target, *GCM),
    }
    if PEERS_PYTHON.exists():
        for name in ("sshtunnel", "asyncssh"):
            found[name] = partial(_python_peer, name, sshd, target)
    return found


# -- the tables ----------------------------------------------------------------------------------


def near(*, quick: bool) -> list[dict[str, Any]]:
    """Everything on loopback, without any delay."""
    return _measure(quick=quick, delayed=False)


def far(*, quick: bool) -> list[dict[str, Any]]:
    """The same with 50 ms for a round trip."""
    return _measure(quick=quick, delayed=True)


def _measure(*, quick: bool, delayed: bool) -> list[dict[str, Any]]:
    if shutil.which(SSHD) is None or shutil.which("ssh") is None:
        print("skipped, not installed: openssh-server, openssh-client")
        return []
    size, rounds = (64 * MB, 3) if quick else (128 * MB, 5)
    echoes = 20 if delayed else 200
    with ExitStack() as stack:
        target = stack.enter_context(_far_end())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sshd = stack.enter_context(private_sshd(folder))
        if delayed:
            sshd = sshd.at(stack.enter_context(_delayed(sshd.port)))
        opened: dict[str, Contestant] = {}
        set_up: dict[str, list[float]] = {}
        for turn in range(rounds):
            for name, open_it in _contestants(sshd, target).items():
                contestant = Contestant(open_it)
                set_up.setdefault(name, []).append(contestant.set_up)
                if turn:
                    contestant.close()
                else:
                    opened[name] = contestant
                    stack.callback(contestant.close)
        tasks = {
            "up": ("up", 1, size),
            "down": ("down", 1, size),
            "8 up": ("up", 8, size),
            "8 down": ("down", 8, size),
            "echo": ("echo", 1, echoes),
        }
        taken: dict[str, dict[str, list[Taken]]] = {n: {t: [] for t in tasks} for n in opened}
        for _ in range(rounds):
            for task, arguments in tasks.items():
                for name, contestant in opened.items():
                    taken[name][task].append(contestant.measure(*arguments))
    return [_row(name, taken, set_up[name], size) for name in opened]


def _row(
    name: str, taken: dict[str, dict[str, list[Taken]]], set_up: list[float], size: int
) -> dict[str, Any]:
    def wall(who: str, task: str) -> float:
        return median(each.wall for each in taken[who][task])

    def against(who: str, task: str) -> float:
        # Of each round by itself: what disturbs the machine disturbs both.
        pairs = zip(taken[name][task], taken[who][task], strict=True)
        return median(theirs.wall / ours.wall for ours, theirs in pairs)

    row: dict[str, Any] = {"way": name}
    for task in ("up", "down", "8 up", "8 down"):
        row[f"{task} MB/s"] = size / MB / wall(name, task)
    row["up CPU s/GB"] = median(each.cpu for each in taken[name]["up"]) * 1000 * MB / size
    row["down CPU s/GB"] = median(each.cpu for each in taken[name]["down"]) * 1000 * MB / size
    row["echo µs"] = wall(name, "echo") * 1e6
    row["set-up ms"] = median(set_up) * 1000
    row["up / ssh"], row["down / ssh"] = against(BASE, "up"), against(BASE, "down")
    row["up / gcm"], row["down / gcm"] = against(BASE_GCM, "up"), against(BASE_GCM, "down")
    return row
