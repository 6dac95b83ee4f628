"""Clients that lease, use and release all the time, and notice when two have one instance."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from socketpool.errors import SocketpoolError
from tests.support.pools import ask_probe
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.pools import RunningPool


@dataclass
class Traffic:
    """So many clients on services that answer as the probe does, for a ``with`` block."""

    pool: RunningPool
    services: tuple[str, ...]
    clients: int = 3
    patience: float = 30
    served: int = 0
    twice: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _held: set[int] = field(default_factory=set)

    def __enter__(self) -> Self:
        self._ends = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        assert self.twice == [], "ports that two leases had at a time"

    def await_served(self, more: int) -> None:
        """Return when so many more leases were served."""
        goal = self.served + more
        what = f"{more} more leases; failures: {self.failures[-3:]}"
        eventually(lambda: self.served >= goal, what, 60)

    def _run(self) -> None:
        client = self.pool.client()
        while not self._ends.is_set():
            try:
                self._once(client)
            except (SocketpoolError, OSError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                self._ends.wait(0.05)
        client.close()

    def _once(self, client: Any) -> None:
        lease = client.acquire(list(self.services), wait=self.patience)
        ports = [service.port for service in lease.services]
        with self._lock:
            self.twice += [port for port in ports if port in self._held]
            self._held.update(ports)
        try:
            shown = {"token": lease.token, "services": [asdict(s) for s in lease.services]}
            for service in self.services:
                assert ask_probe(shown, "echo", service, text=lease.id) == lease.id
        finally:
            with self._lock:
                self._held.difference_update(ports)
            client.release(lease.id)
        self.served += 1
