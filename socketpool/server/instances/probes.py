"""Asks instances whether they are ready, and whether they still work.

Each probe is a task of its own with a time limit, and only a few of a service run at a time: nobody
else, neither the manager of the instances nor a lease, ever waits for one.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from socketpool.core.decision import Observation
from socketpool.core.lifecycle import HELD, InstanceState
from socketpool.server.instances.readiness import Target, probe_of
from socketpool.supervision.notify import ALIVE, READY, Message, ReadyMessages
from socketpool.system.listeners import Listeners, is_stopped
from socketpool.system.processes import child_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any

    from socketpool.config.settings import Service
    from socketpool.config.statedir import StateDir
    from socketpool.server.instances.live import LiveInstance, LiveProcess

MAX_AT_A_TIME = 4
"""How many probes of one service that cost something run at the same time."""

POLL_SECONDS = 0.5
RETRY_SECONDS = 0.2
"""Pause between two probes of an instance that starts, in seconds."""

SECOND_PROBE_SECONDS = 1.0
"""After how many seconds an instance that failed one probe is probed again, at the latest."""

OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
"""Errors that say nothing about an instance, so that none is replaced for them."""

log = logging.getLogger("socketpool.probes")


class Prober:
    """Probes the instances of one pool.

    ``wake`` is called with an instance and what a probe says of it, or without both when a starting
    instance may have become ready.
    """

    def __init__(
        self,
        instances: Iterable[LiveInstance],
        state: StateDir,
        *,
        host: str,
        wake: Callable[[LiveInstance | None, Observation], None],
    ) -> None:
        self.services: dict[str, Service] = {}
        self._instances = instances
        self._state = state
        self._host = host
        self._wake = wake
        self._messages = ReadyMessages(state.notify_socket)
        # Processes that said that they are ready before it was known whose they are: first as the
        # kernel named the sender, then the child of supervisord from which that one descends.
        self._senders: set[int] = set()
        self._ready_processes: set[int] = set()
        self._asked: set[LiveProcess] = set()
        self._slots: dict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(MAX_AT_A_TIME)
        )
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self) -> None:
        """Hear what instances say, from now on."""
        asyncio.get_running_loop().add_reader(self._messages, self._hear)

    def close(self) -> None:
        """Ask nobody any more."""
        for task in self._tasks:
            task.cancel()
        asyncio.get_running_loop().remove_reader(self._messages)
        self._messages.close()

    # -- readiness ---------------------------------------------------------------------------

    def is_ready(self, live: LiveInstance, listeners: Listeners) -> bool:
        """Whether a starting instance is ready; begins a probe when that decides it."""
        process = live.process
        service = self.services.get(live.record.service)
        if process is None or service is None or not listeners.owned(live.port, process.pid):
            return False
        if service.notifies:
            self._place_messages()
            if process.pid in self._ready_processes:
                self._ready_processes.discard(process.pid)
                process.said_ready = True
            return process.said_ready
        if probe_of(service.readiness.kind) is None or process.passed:
            return True
        if process.readiness is None or process.readiness.done():
            process.readiness = self._begin(self._probe_start(service, live.port, process))
        return False

    async def _probe_start(self, service: Service, port: int, process: LiveProcess) -> None:
        with suppress(OSError):
            if await self._probe(service, port):
                process.passed = True
                self._wake(None, Observation())
                return
        await asyncio.sleep(RETRY_SECONDS)

    # -- liveness ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask ready instances for ever, each at its service's interval, spread over it."""
        while True:
            now = time.monotonic()
            due = [
                (service, live, live.process)
                for live in self._instances
                if live.process is not None
                and (service := self.services.get(live.record.service)) is not None
                and _is_due(live, live.process, service.readiness.interval, now)
            ]
            is_plain = any(service.sdk is None for service, _, _ in due)
            try:
                listeners = await asyncio.to_thread(Listeners) if is_plain else None
            except OSError as error:
                log.warning("probing failed", extra={"error": error.strerror})
                due = []
            for service, live, process in due:
                self._begin(self._check(service, live, process, listeners))
            await asyncio.sleep(POLL_SECONDS)

    async def _check(
        self,
        service: Service,
        live: LiveInstance,
        process: LiveProcess,
        listeners: Listeners | None,
    ) -> None:
        if live.process is not process:
            return
        try:
            complaint = await self._complaint(service, live, process, listeners)
        except OSError as error:
            log.warning("probing failed", extra={"error": error.strerror})
            return
        if live.process is not process:
            return  # it has another process by now, or was removed
        is_second = live.record.probe_failed
        if complaint:
            self._wake(live, Observation(complaint=complaint))
            if not is_second:
                again = min(service.readiness.interval, SECOND_PROBE_SECONDS)
                process.probe_at = time.monotonic() + again
        elif is_second:
            self._wake(live, Observation(answered=True))

    async def _complaint(
        self,
        service: Service,
        live: LiveInstance,
        process: LiveProcess,
        listeners: Listeners | None,
    ) -> str:
        """What is wrong with a ready instance; empty when nothing is.

        One that is leased may be busy, so it is only asked what costs it nothing.
        """
        if service.sdk is not None:
            return "" if await self._answers(service, live.port, process) else "it does not answer"
        if is_stopped(process.pid):
            return "its process is stopped (SIGSTOP)"
        if listeners is not None and live.port not in listeners.ports():
            return "it no longer listens"
        if live.record.state in HELD or await self._probe(service, live.port):
            return ""
        return f"its {service.readiness.kind} probe fails"

    async def _answers(self, service: Service, port: int, process: LiveProcess) -> bool:
        answer = process.answer = asyncio.get_running_loop().create_future()
        self._asked.add(process)
        try:
            self._messages.ask(self._state.alive / str(port))
            async with asyncio.timeout(service.readiness.timeout):
                await answer
        except OSError:  # nobody is there, its queue of questions is full, or TimeoutError
            return False
        finally:
            self._asked.discard(process)
            process.answer = None
        return True

    # -- messages of instances ---------------------------------------------------------------

    def _hear(self) -> None:
        for message in self._messages.receive():
            self._note(message)

    def _note(self, message: Message) -> None:
        if message.text == READY:
            # Of processes that have ended meanwhile nothing is kept: a number is used again.
            self._ready_processes = {
                p for p in self._ready_processes if Path(f"/proc/{p}").exists()
            }
            self._senders.add(message.pid)
            self._place_messages()
            self._wake(None, Observation())
        elif message.text == ALIVE:
            for process in self._asked:
                if process.pid == message.pid and process.answer and not process.answer.done():
                    process.answer.set_result(None)

    def _place_messages(self) -> None:
        """Find out for which processes it was said; without descriptors, at the next look."""
        with suppress(OSError):
            for pid in list(self._senders):
                self._ready_processes.add(child_of(os.getppid(), pid))
                self._senders.discard(pid)

    # -- probes ------------------------------------------------------------------------------

    async def _probe(self, service: Service, port: int) -> bool:
        """Whether the probe succeeds; raises OSError when we are out of descriptors ourselves."""
        probe = probe_of(service.readiness.kind)
        if probe is None:
            return True
        specification = self._state.services / f"{service.name}.json"
        target = Target(service, self._host, port, specification)
        try:
            async with self._slots[service.name], asyncio.timeout(service.readiness.timeout):
                return await probe(target)
        except OSError as error:  # TimeoutError among them
            if error.errno in OUT_OF_DESCRIPTORS:
                raise
            return False

    def _begin(self, probe: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(probe)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _is_due(live: LiveInstance, process: LiveProcess, interval: float, now: float) -> bool:
    """Whether a ready instance is to be asked now; plans when it is asked next."""
    if live.record.state is not InstanceState.IDLE and live.record.state not in HELD:
        return False
    if process.probe_at is None:
        process.probe_at = now + interval * random.random()  # noqa: S311
    if process.probe_at > now:
        return False
    process.probe_at = now + interval
    return True
