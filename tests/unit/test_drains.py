"""What is drained, and how it is taken back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from socketpool.core.lifecycle import InstanceEvent, InstanceState
from socketpool.core.pool import Pool
from socketpool.core.ports import PortRange
from socketpool.core.records import Instance, ServicePlan
from socketpool.errors import ConfigError, NoSuchTarget, UsageError
from socketpool.server.instances.drains import Drains

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

IDLE, LEASED = InstanceState.IDLE, InstanceState.LEASED


class House:
    """Two instances of ``up``, one of them leased, and one of ``down``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "drained.json"
        self.leaving: set[str] = set()
        self.changes = 0
        plans = [ServicePlan(name, 1, 4, restart=False) for name in ("up", "down")]
        self.pool = Pool(plans, PortRange(2000, 2010), max_age=1, new_id=lambda: "1")
        for port, service, state in (
            (2000, "up", LEASED),
            (2001, "up", IDLE),
            (2002, "down", IDLE),
        ):
            self.pool.add(Instance(service, port, service, state))
        self.drains = self.load()

    def load(self) -> Drains:
        return Drains(
            self.pool, self.path, leaving=self.leaving.__contains__, changed=self.on_change
        )

    def on_change(self) -> None:
        self.changes += 1

    def states(self) -> list[str]:
        return [str(self.pool.instances[port].state) for port in (2000, 2001, 2002)]


def in_loop(body: Callable[[], None]) -> None:
    async def run() -> None:
        body()

    awaited: Awaitable[None] = run()
    asyncio.run(awaited)  # type: ignore[arg-type]


def test_a_service_is_drained_remembered_and_taken_back(tmp_path: Path) -> None:
    def body() -> None:
        house = House(tmp_path)
        house.drains.drain("up")
        assert house.states() == ["draining", "stopping", "idle"]
        assert (house.drains.held("up"), house.drains.stopped("up")) == (1, False)
        assert house.drains.covers("up")
        assert not house.drains.covers("down")
        assert house.load().covers("up", "up:2000")
        house.pool.apply(2001, InstanceEvent.STOPPED, 0)
        house.drains.resume("up")
        assert house.states() == ["leased", "registered", "idle"]
        assert house.load().names == set()
        assert house.changes == 2

    in_loop(body)


def test_all_is_drained_and_one_service_taken_back(tmp_path: Path) -> None:
    def body() -> None:
        house = House(tmp_path)
        house.drains.drain("")
        assert house.states() == ["draining", "stopping", "stopping"]
        assert house.drains.covers("up")
        assert house.drains.covers("one that a reload brings")
        with pytest.raises(UsageError, match="whole service"):
            house.drains.resume("up:2000")
        house.drains.resume("down")
        assert house.states() == ["draining", "stopping", "recycling"]
        assert house.drains.names == {"up"}
        house.drains.drain("")
        house.drains.resume("")
        assert house.drains.names == set()
        assert house.states() == ["leased", "recycling", "recycling"]

    in_loop(body)


def test_one_instance_is_drained(tmp_path: Path) -> None:
    def body() -> None:
        house = House(tmp_path)
        house.drains.drain("up:2001")
        assert house.states() == ["leased", "stopping", "idle"]
        assert not house.drains.covers("up")
        assert house.drains.covers("up", "up:2001")
        house.drains.resume("up")
        assert house.states() == ["leased", "recycling", "idle"]
        assert house.drains.names == set()

    in_loop(body)


def test_what_is_being_given_up_is_not_taken_back(tmp_path: Path) -> None:
    def body() -> None:
        house = House(tmp_path)
        house.drains.drain("down")
        house.leaving.add("down")
        house.drains.resume("down")
        assert house.states() == ["leased", "idle", "stopping"]

    in_loop(body)


def test_what_can_t_be_remembered_is_not_drained(tmp_path: Path) -> None:
    def body() -> None:
        house = House(tmp_path)
        house.path.with_suffix(".new").mkdir()
        with pytest.raises(ConfigError):
            house.drains.drain("up")
        assert house.states() == ["leased", "idle", "idle"]
        assert house.drains.names == set()
        assert house.changes == 0

    in_loop(body)


@pytest.mark.parametrize("target", ["nothing", "up:2002", "*", "up.2:2001"])
def test_what_is_not_there_is_refused(tmp_path: Path, target: str) -> None:
    def body() -> None:
        house = House(tmp_path)
        for act in (house.drains.drain, house.drains.resume):
            with pytest.raises(NoSuchTarget):
                act(target)
        assert house.states() == ["leased", "idle", "idle"]

    in_loop(body)
