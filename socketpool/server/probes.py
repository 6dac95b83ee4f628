"""Asks instances whether they are ready, and whether they still work.

Each probe is a task of its own with a time limit, and only a few of a service run at a time: nobody
else, neither the watch over supervisord nor a lease, ever waits for one.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import signal
import sys
import time
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

from socketpool.core.lifecycle import HELD, InstanceState
from socketpool.supervision import launch
from socketpool.supervision.notify import ALIVE, READY, Message, ReadyMessages
from socketpool.system.listeners import Listeners, is_stopped
from socketpool.system.processes import child_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.config.settings import Service
    from socketpool.config.statedir import StateDir
    from socketpool.core.pool import Pool
    from socketpool.core.records import Instance

AT_A_TIME = 4
"""Probes of one service that cost something; the others don't wait for them."""

TICK = 0.5
RETRY_SECONDS = 0.2
"""Between two probes of an instance that starts."""

DOUBT_SECONDS = 1.0
"""Until an instance that failed one probe is probed again; failing that too, it is replaced."""

STATUS_LINE_BYTES = 4096

OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
"""What says nothing about an instance, so that nobody is replaced for it."""

log = logging.getLogger("socketpool.probes")


class Prober:
    """Probes the instances of one pool.

    ``passed`` is called when a probe of a starting instance succeeded, and ``suspect`` with the
    instance and a reason when one that was ready has failed two probes in a row.
    """

    def __init__(
        self,
        pool: Pool,
        state: StateDir,
        *,
        host: str,
        passed: Callable[[], None],
        suspect: Callable[[Instance, str], None],
    ) -> None:
        self.services: dict[str, Service] = {}
        self._pool = pool
        self._state = state
        self._host = host
        self._passed = passed
        self._suspect = suspect
        self._messages = ReadyMessages(state.notify_socket)
        self._said_ready: set[int] = set()  # instances' processes, as the kernel named the senders
        self._speakers: set[int] = set()  # senders of whom it is not known yet for which they spoke
        self._answers: dict[int, asyncio.Future[None]] = {}  # process -> its answer
        self._ready: dict[int, int] = {}  # port -> process whose readiness probe succeeded
        self._starting: dict[int, asyncio.Task[None]] = {}
        self._due: dict[int, float] = {}  # port -> when it is asked again
        self._doubted: dict[int, int] = {}  # port -> process that failed its last probe
        self._slots: dict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(AT_A_TIME)
        )
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self) -> None:
        """Hear what instances say, from now on."""
        asyncio.get_running_loop().add_reader(self._messages, self._hear)

    def trust(self, pid: int) -> None:
        """Take it that a process was ready: it said so to a pool server of before."""
        self._said_ready.add(pid)

    def forget(self, port: int, pid: int) -> None:
        """The process of an instance has ended."""
        self._said_ready.discard(pid)
        self._ready.pop(port, None)
        self._doubted.pop(port, None)
        self._due.pop(port, None)

    def close(self) -> None:
        """Ask nobody any more."""
        for task in (*self._tasks, *self._starting.values()):
            task.cancel()
        asyncio.get_running_loop().remove_reader(self._messages)
        self._messages.close()

    # -- readiness ---------------------------------------------------------------------------

    def is_ready(self, instance: Instance, pid: int, listeners: Listeners) -> bool:
        """Whether a starting instance is ready; begins a probe when that decides it."""
        if not listeners.owned(instance.port, pid):
            return False
        service = self.services.get(instance.service)
        if service is None:
            return False
        if service.notifies:
            self._place_speakers()
            return pid in self._said_ready
        if service.readiness.kind == "listen":
            return True
        if self._ready.get(instance.port) == pid:
            return True
        if instance.port not in self._starting:
            task = asyncio.create_task(self._probe_start(service, instance.port, pid))
            self._starting[instance.port] = task
            task.add_done_callback(lambda _: self._starting.pop(instance.port, None))
        return False

    async def _probe_start(self, service: Service, port: int, pid: int) -> None:
        with suppress(OSError):
            if await self._probe(service, port):
                self._ready[port] = pid
                self._passed()
                return
        await asyncio.sleep(RETRY_SECONDS)

    # -- liveness ----------------------------------------------------------------------------

    async def keep(self) -> None:
        """Ask ready instances for ever, each at its service's interval, spread over it."""
        while True:
            now = time.monotonic()
            due = [i for i in self._pool.instances.values() if self._is_due(i, now)]
            plain = any(self.services[i.service].sdk is None for i in due)
            try:
                listeners = await asyncio.to_thread(Listeners) if plain else None
            except OSError as error:
                log.warning("probing failed", extra={"error": error.strerror})
                due = []
            for instance in due:
                task = asyncio.create_task(self._check(instance, listeners))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(TICK)

    def _is_due(self, instance: Instance, now: float) -> bool:
        service = self.services.get(instance.service)
        if service is None or not instance.pid:
            return False
        if instance.state is not InstanceState.IDLE and instance.state not in HELD:
            return False
        if instance.port not in self._due:
            self._due[instance.port] = now + service.readiness.interval * random.random()  # noqa: S311
        if self._due[instance.port] > now:
            return False
        self._due[instance.port] = now + service.readiness.interval
        return True

    async def _check(self, instance: Instance, listeners: Listeners | None) -> None:
        service = self.services[instance.service]
        try:
            reason = await self._complaint(service, instance, listeners)
        except OSError as error:
            log.warning("probing failed", extra={"error": error.strerror})
            return
        now = self._pool.instances.get(instance.port)
        if now is None or now.pid != instance.pid:
            return  # another process by now
        if not reason:
            self._doubted.pop(instance.port, None)
        elif self._doubted.get(instance.port) != instance.pid:
            self._doubted[instance.port] = instance.pid
            again = min(service.readiness.interval, DOUBT_SECONDS)
            self._due[instance.port] = time.monotonic() + again
        else:
            self._suspect(now, reason)

    async def _complaint(
        self, service: Service, instance: Instance, listeners: Listeners | None
    ) -> str:
        """What is wrong with a ready instance; empty when nothing is.

        One that is leased may be busy, so it is only asked what costs it nothing.
        """
        if service.sdk is not None:
            return "" if await self._answers_alive(service, instance) else "it does not answer"
        if is_stopped(instance.pid):
            return "its process is stopped (SIGSTOP)"
        if listeners is not None and instance.port not in listeners.ports():
            return "it no longer listens"
        if instance.state in HELD or await self._probe(service, instance.port):
            return ""
        return f"its {service.readiness.kind} probe fails"

    async def _answers_alive(self, service: Service, instance: Instance) -> bool:
        answer = self._answers[instance.pid] = asyncio.get_running_loop().create_future()
        try:
            self._messages.ask(self._state.alive / str(instance.port))
            async with asyncio.timeout(service.readiness.timeout):
                await answer
        except OSError:  # nobody is there, its queue of questions is full, or TimeoutError
            return False
        finally:
            self._answers.pop(instance.pid, None)
        return True

    def _hear(self) -> None:
        for message in self._messages.receive():
            self._note(message)

    def _note(self, message: Message) -> None:
        if message.text == READY:
            self._speakers.add(message.pid)
            self._place_speakers()
            self._passed()
        elif message.text == ALIVE:
            answer = self._answers.get(message.pid)
            if answer is not None and not answer.done():
                answer.set_result(None)

    def _place_speakers(self) -> None:
        """Find out which instances were spoken for; without descriptors, at the next look."""
        with suppress(OSError):
            for pid in list(self._speakers):
                self._said_ready.add(child_of(os.getppid(), pid))
                self._speakers.discard(pid)

    # -- probes ------------------------------------------------------------------------------

    async def _probe(self, service: Service, port: int) -> bool:
        """Whether the probe succeeds; raises OSError when we are out of descriptors ourselves."""
        readiness = service.readiness
        try:
            async with self._slots[service.name], asyncio.timeout(readiness.timeout):
                if readiness.kind == "http":
                    return await self._get(port, readiness.path or "/")
                if readiness.kind == "exec":
                    return await self._execute(service, port)
        except OSError as error:  # TimeoutError among them
            if error.errno in OUT_OF_DESCRIPTORS:
                raise
            return False
        return True

    async def _get(self, port: int, path: str) -> bool:
        """Whether a GET is answered with 2xx or 3xx."""
        reader, writer = await asyncio.open_connection(self._host, port, limit=STATUS_LINE_BYTES)
        try:
            host = f"[{self._host}]" if ":" in self._host else self._host
            request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
            writer.write(request.encode("ascii"))
            line = await reader.readline()
        except ValueError:  # a line that no HTTP server sends
            return False
        finally:
            writer.close()
        words = line.split()
        return len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1][:1] in {b"2", b"3"}

    async def _execute(self, service: Service, port: int) -> bool:
        """Whether the service's probe program, prepared as its instances are, exits with 0."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", launch.__file__),
            *(str(self._state.services / f"{service.name}.json"), str(port), str(os.getpid())),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return await process.wait() == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it left running, and itself if late
            if process.returncode is None:
                await asyncio.shield(process.wait())
