"""Performs what was decided about instances."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

from socketpool.core.decision import (
    Fail,
    Happen,
    Kill,
    Note,
    Remove,
    RetryNow,
    Saw,
    Start,
    Stop,
    UpToDate,
    retry_delay,
)
from socketpool.core.lifecycle import InstanceEvent, InstanceState
from socketpool.supervision.logtail import last_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from socketpool.config.statedir import StateDir
    from socketpool.core.backoff import Backoff
    from socketpool.core.decision import Action
    from socketpool.core.pool import Pool
    from socketpool.server.instances.live import LiveInstance, LiveInstances
    from socketpool.supervision.rpc import Supervisor
    from socketpool.supervision.rpcthread import Worker

log = logging.getLogger("socketpool.instances")


class Actor:
    """Acts on the instances of one pool.

    ``backoff`` gives the pauses before failed instances are tried again; ``news`` is set when an
    instance became idle or failed, so that whoever waits for one can be answered.
    """

    def __init__(
        self,
        pool: Pool,
        instances: LiveInstances,
        state: StateDir,
        supervisor: Supervisor,
        worker: Worker,
        *,
        backoff: Backoff,
    ) -> None:
        self.backoff = backoff
        self.news = False
        self._pool = pool
        self._instances = instances
        self._state = state
        self._supervisor = supervisor
        self._worker = worker

    async def act(self, live: LiveInstance, actions: Iterable[Action]) -> None:
        """Perform the actions; raises SocketpoolError when supervisord refuses one."""
        for action in actions:
            match action:
                case Start():
                    await self._start(live)
                case Stop():
                    await self._worker(self._supervisor.stop, live.record.name)
                case _:
                    self._perform(live, action)

    def act_at_once(self, live: LiveInstance, actions: Iterable[Action]) -> None:
        """Perform actions for which supervisord need not be asked."""
        for action in actions:
            self._perform(live, action)

    def _perform(self, live: LiveInstance, action: Action) -> None:
        port = live.port
        match action:
            case Happen():
                self._happen(live, action)
            case Saw():
                if not action.pid:
                    live.lose_process()
                self._pool.saw(port, action.pid)
            case Note():
                self._pool.note(port, action.fact, value=action.value)
            case UpToDate():
                self._pool.note(port, "outdated_since", value=0.0)
            case RetryNow():
                self._pool.note(port, "retry_at", value=0.0)
            case Kill():
                if live.process is not None:
                    live.process.kill()
            case Fail():
                self._fail(live)
            case Remove():
                log.warning("removed by an operator", extra={"instance": live.record.name})
                self._instances.remove(port)
            case Start() | Stop():
                raise AssertionError(f"{action} needs supervisord")

    def _happen(self, live: LiveInstance, action: Happen) -> None:
        before = live.record
        extra = {"instance": before.name}
        if action.reason:
            extra["reason"] = action.reason
            log.error("instance does not work", extra=extra)
        after = self._pool.apply(live.port, action.event, time.monotonic())
        match action.event:
            case InstanceEvent.LOST:
                if live.process is not None and live.process.pid == before.pid:
                    live.lose_process()
                log.info("process exited", extra=extra | {"state": after.state})
            case InstanceEvent.READY:
                live.last_lines = []
                self.news = True
                if after.failures:
                    log.info("works again", extra=extra)
            case InstanceEvent.STOPPED if before.state is InstanceState.STARTING:
                log.info("stopped by an operator", extra=extra)

    def _fail(self, live: LiveInstance) -> None:
        """Give it up for a while, and keep the last lines of its log."""
        record = live.record
        start_limit = self._pool.start_limit(record.service)
        delay = retry_delay(record, self.backoff, start_limit, random.random())  # noqa: S311
        now = time.monotonic()
        self._pool.fail(live.port, now + delay, now)
        live.last_lines = last_lines(self._state.instance_log(record.service, live.port))
        self.news = True
        extra = {"instance": record.name, "exits": record.exits, "again_in": round(delay, 3)}
        log.error("instance failed", extra=extra)

    async def _start(self, live: LiveInstance) -> None:
        before = live.record
        await self._worker(self._supervisor.start, before.name)
        if self._instances.get(live.port) is live and live.record.state is before.state:
            self._pool.apply(live.port, InstanceEvent.SPAWNED, time.monotonic())
