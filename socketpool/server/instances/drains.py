"""What is drained: nobody gets it any more, and what nobody has is stopped.

Remembered in a file, so that a restart of the pool server in the midst of an upgrade does not offer
again what was to go.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from socketpool.core.lifecycle import HELD, INSTANCE, InstanceEvent, InstanceState
from socketpool.errors import ConfigError, NoSuchTarget, UsageError
from socketpool.supervision import conf

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from socketpool.core.pool import Pool
    from socketpool.core.records import Instance

EVERYTHING = "*"


class Drains:
    """The drained services and instances of one pool.  ``changed`` is called after each change.

    ``leaving`` says of a block whether it is being given up; its instances can't be had back.
    """

    def __init__(
        self,
        pool: Pool,
        path: Path,
        *,
        leaving: Callable[[str], bool],
        changed: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._path = path
        self._leaving = leaving
        self._changed = changed
        self.names = self._load()

    def covers(self, service: str, instance: str = "") -> bool:
        """Whether the service, or this instance of it, is drained."""
        return not self.names.isdisjoint({EVERYTHING, service, instance or service})

    def drain(self, target: str) -> None:
        """Drain a service, an instance, or with an empty target everything.

        Raises :class:`NoSuchTarget`, and ConfigError when it can't be remembered; then nothing has
        changed.
        """
        instances = self._instances(target)
        self._remember(self.names | {target or EVERYTHING})
        for instance in instances:
            if INSTANCE.allows(instance.state, InstanceEvent.DRAINED):
                self._pool.apply(instance.port, InstanceEvent.DRAINED, time.monotonic())
        self._changed()

    def resume(self, target: str) -> None:
        """Take a drain back, and start what was stopped by it; raises as `drain` does."""
        instances = self._instances(target)
        names = self.names
        if EVERYTHING in names:  # all others stay drained
            names = names - {EVERYTHING} | set(self._pool.services)
        ended = {target} | {i.name for i in instances} if target else names
        if ":" in target and any(i.service in names for i in instances):
            raise UsageError(
                f"the whole service of {target} is drained",
                hint="undo that: socketpool drain --undo SERVICE",
            )
        self._remember(names - ended)
        for instance in instances:
            is_ours = not self._leaving(instance.block)
            if is_ours and INSTANCE.allows(instance.state, InstanceEvent.RESUMED):
                self._pool.apply(instance.port, InstanceEvent.RESUMED, time.monotonic())
        self._changed()

    def held(self, target: str) -> int:
        """How many instances of the target still belong to a lease."""
        return sum(instance.state in HELD for instance in self._instances(target))

    def stopped(self, target: str) -> bool:
        """Whether all of the target has come to rest."""
        return all(i.state is InstanceState.STOPPED for i in self._instances(target))

    def _instances(self, target: str) -> list[Instance]:
        if not target:
            return list(self._pool.instances.values())
        found = [i for i in self._pool.instances.values() if target in {i.service, i.name}]
        if not found and target not in self._pool.services:
            raise NoSuchTarget(
                f"{target!r} is neither a service nor an instance of this pool",
                hint="socketpool status lists them; an instance is written upload:21000",
            )
        return found

    def _remember(self, names: set[str]) -> None:
        if names == self.names:
            return
        try:
            conf.install(self._path, json.dumps(sorted(names)))
        except OSError as error:
            raise ConfigError(
                f"{self._path}: {error.strerror}", hint="check the disk's space and permissions"
            ) from None
        self.names = names

    def _load(self) -> set[str]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return set()
        return {str(name) for name in found}
