"""`socketpool.client` as a program uses it, against a real pool."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import socketpool.client
from socketpool.client import connect, connect_async
from socketpool.errors import NoCapacity, NotAuthorised, ServiceUnknown
from tests.support.pools import PROBE, WEB, PoolMaker, connects
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socketpool.client import PoolClient
    from tests.support.pools import RunningPool

DOCUMENT = Path(__file__).parents[2] / "docs" / "library.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def _pool() -> Iterator[RunningPool]:
    with PoolMaker() as maker:
        yield maker.start(
            {
                "probe": PROBE | {"warm": 2, "max": 2},
                "web": WEB | {"warm": 1, "max": 1, "url": "http://{host}:{port}/"},
            }
        )


@pytest.fixture
def pool(_pool: RunningPool, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningPool]:
    """A pool that a program finds by its environment, and of which nothing is leased after."""
    monkeypatch.setenv("SOCKETPOOL_POOL", f"{_pool.host}:{_pool.port}")
    monkeypatch.setenv("SOCKETPOOL_STATE_DIR", str(_pool.state))
    yield _pool
    eventually(lambda: {i["state"] for i in _pool.instances()} == {"idle"}, "the leases' end")


def test_one_name_gives_the_service_and_several_give_the_lease(pool: RunningPool) -> None:
    with connect() as client:
        with client.lease("web") as web:
            assert connects(web.host, web.port)
            assert web.url == f"http://{web.host}:{web.port}/"
            (status,) = client.leases()
            assert [s.instance for s in status.services] == [web.instance]
        with client.lease("probe", "probe", "web", ttl=60) as lease:
            assert len({s.port for s in lease.services}) == 3
            assert lease["probe"] == lease.services[0]
            assert lease.ttl == 60
            with pytest.raises(KeyError):
                lease["nothing"]
        assert client.leases() == []
        assert client.history(lease.id).how == "release"
    with pytest.raises(dataclasses.FrozenInstanceError):
        web.port = 1  # type: ignore[misc]


def test_a_lease_is_renewed_while_the_block_runs_and_released_by_an_exception(
    pool: RunningPool,
) -> None:
    with connect() as client:
        with suppress(ZeroDivisionError), client.hold(["probe"], ttl=1) as lease:
            eventually(lambda: client.history(lease.id).renewals >= 4, "renewals")
            raise ZeroDivisionError
        assert client.leases() == []


def test_a_lease_that_ends_meanwhile_is_told(pool: RunningPool) -> None:
    with connect() as client:
        lost = threading.Event()
        with client.hold(["probe"], ttl=1, lost=lost.set) as lease:
            client.release(lease.id)
            assert lost.wait(30)
        with pytest.raises(NotAuthorised, match="ended while it was in use"):
            _lose(client)


def _lose(client: PoolClient) -> None:
    with client.hold(["web"], ttl=1) as held:
        client.release(held.id)
        eventually(_renewals_ended, "the end of the renewals")


def _renewals_ended() -> bool:
    return not any(thread.name == "lease-renewal" for thread in threading.enumerate())


def test_errors_are_those_of_the_commands(pool: RunningPool) -> None:
    with connect() as client:
        with pytest.raises(ServiceUnknown), client.lease("nothing"):
            pass
        with (
            client.lease("web"),
            pytest.raises(NoCapacity) as caught,
            client.lease("web", wait=0),
        ):
            pass
        assert client.history(caught.value.reference).refusal


def test_the_answers_are_records(pool: RunningPool) -> None:
    with connect() as client:
        assert {s.service: s.max for s in client.services()} == {"probe": 2, "web": 1}
        assert {i.port for i in client.instances()} == {i["port"] for i in pool.instances()}
        assert client.status().drained == ()
        assert client.drain("web").leased == 0
        assert client.drain("web", undo=True).leased == 0
        assert client.reload().changed == ()


def test_async_tasks_that_wait_for_one_another_all_get_their_lease(pool: RunningPool) -> None:
    async def use(client: Any, number: int) -> int:
        async with client.lease("web") as web:
            assert await asyncio.to_thread(connects, web.host, web.port)
        return number

    async def main() -> list[int]:
        async with connect_async() as client:
            return await asyncio.gather(*(use(client, number) for number in range(12)))

    assert asyncio.run(main()) == list(range(12))


def test_a_cancelled_wait_leaves_no_lease_and_no_request(pool: RunningPool) -> None:
    async def main() -> None:
        async with connect_async() as client:
            async with client.lease("web"):
                waiting = asyncio.create_task(client.acquire(["web"], wait=300))
                await asyncio.sleep(0.5)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            async with client.lease("web", wait=20) as web:
                assert web.port

    asyncio.run(main())


def test_a_call_that_is_cancelled_at_any_moment_leaves_no_lease(pool: RunningPool) -> None:
    async def main() -> None:
        async with connect_async() as client:
            for number in range(20):
                asked = asyncio.create_task(client.acquire(["probe"], ttl=300))
                await asyncio.sleep(number / 1000)
                asked.cancel()
                with suppress(asyncio.CancelledError):
                    await client.release((await asked).id)

    asyncio.run(main())
    with connect() as client:
        eventually(lambda: client.leases() == [], "no lease")


def test_an_async_block_that_is_cancelled_releases_its_lease(pool: RunningPool) -> None:
    async def hold(client: Any, inside: asyncio.Event) -> None:
        async with client.lease("web"):
            inside.set()
            await asyncio.sleep(3600)

    async def main() -> None:
        async with connect_async() as client:
            inside = asyncio.Event()
            task = asyncio.create_task(hold(client, inside))
            await inside.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.leases() == []

    asyncio.run(main())


@pytest.mark.parametrize("code", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_examples_of_the_document_run(
    pool: RunningPool, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "connect()" in code and "import" not in code:
        code = f"from socketpool.client import connect\n{code}"
    exec(code, {"__name__": "example"})
    assert "http://" in capsys.readouterr().out


def test_every_public_name_is_there_and_documented() -> None:
    for name in socketpool.client.__all__:
        assert getattr(socketpool.client, name).__doc__, name
        assert not getattr(socketpool.client, name).__doc__.startswith(f"{name}("), name
