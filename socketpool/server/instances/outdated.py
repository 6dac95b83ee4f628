"""Replaces the instances of services that a reload has changed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from socketpool.core.decision import replacements
from socketpool.system.processes import started

if TYPE_CHECKING:
    from collections.abc import Collection

    from socketpool.core.pool import Pool
    from socketpool.server.instances.act import Actor
    from socketpool.server.instances.live import LiveInstances


class Updater:
    """Brings the instances of one pool up to date, one of each service at a time."""

    def __init__(self, pool: Pool, instances: LiveInstances, actor: Actor) -> None:
        self._pool = pool
        self._instances = instances
        self._actor = actor

    def outdate(self, services: Collection[str]) -> None:
        """The instances of these services were started with what their services were before."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        for record in list(self._pool.instances.values()):
            if record.service in services:
                self._pool.note(record.port, "outdated_since", value=now)

    def replace(self) -> None:
        """Replace what can be replaced now."""
        records = self._pool.instances.values()
        outdated = [i for i in records if i.outdated_since]
        if not outdated:
            return
        begun = {i.port: started(i.pid) for i in outdated if i.pid}
        for record, action in replacements(records, begun):
            live = self._instances.get(record.port)
            if live is not None:
                self._actor.act_at_once(live, [action])
