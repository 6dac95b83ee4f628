"""``kill -9`` of the pool server at each step of a grant, of a release and of its own recovery."""

from __future__ import annotations

import contextlib
import http.client
from typing import TYPE_CHECKING, Any

import pytest

from socketpool.errors import NotAuthorised
from tests.support.faultyserver import Faults
from tests.support.invariants import assert_all_free, assert_consistent
from tests.support.pools import PROBE, WEB, PoolMaker, ask_probe, place
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.pools import Answer, RunningPool

BOTH = ("probe", "web")
LOST = (OSError, http.client.HTTPException)
"""What a client sees when the server dies before it answers."""


@pytest.fixture(scope="module")
def _pool() -> Iterator[tuple[RunningPool, Faults]]:
    with PoolMaker() as maker:
        pool = maker.start(
            {"probe": PROBE | {"warm": 2, "max": 2}, "web": WEB | {"warm": 1, "max": 1}}
        )
        yield pool, Faults(pool)


@pytest.fixture
def pool(_pool: tuple[RunningPool, Faults]) -> Iterator[RunningPool]:
    """Each test gives everything back, and finds that it is free again."""
    yield _pool[0]
    for lease in _pool[0].request("GET", "/v1/leases").body:
        _pool[0].release(lease)
    assert_all_free(_pool[0])


@pytest.fixture
def faults(_pool: tuple[RunningPool, Faults]) -> Iterator[Faults]:
    yield _pool[1]
    _pool[1].disarm()


def die_of(pool: RunningPool, faults: Faults, point: str, method: str, path: str, body: Any) -> Any:
    """The server dies at this point of a request and comes back; the answer, if one got out."""
    before = pool.server_pid()
    faults.arm(point)
    answer: Answer | None = None
    with contextlib.suppress(*LOST):
        answer = pool.request(method, path, body)
    pool.await_server(after=before)
    assert not faults.is_armed(point), "it died for another reason"
    return answer


def works(lease: dict[str, Any]) -> bool:
    return bool(ask_probe(lease, "echo", text=lease["lease"]) == lease["lease"])


@pytest.mark.parametrize(
    ("point", "lives"),
    [
        ("granted", False),
        ("save-within", False),
        ("save-after", False),
        ("admit-before", False),
        ("admit-within", False),
        ("admit-after", True),
    ],
)
def test_a_grant_that_the_server_did_not_survive_is_whole_or_was_never(
    pool: RunningPool, faults: Faults, point: str, lives: bool
) -> None:
    ask = {"services": list(BOTH), "key": point, "wait": 30}
    assert die_of(pool, faults, point, "POST", "/v1/leases", ask) is None
    found = assert_consistent(pool)
    assert len(found) == lives
    lease = pool.lease(*BOTH, key=point, wait=30)
    assert not found or lease["lease"] in found
    assert pool.lease(*BOTH, key=point)["token"] == lease["token"]
    assert works(lease)
    with pool.leased("probe", wait=30) as other:
        assert place(other, "probe")["port"] != place(lease, "probe")["port"]
        assert works(other)
        assert len(assert_consistent(pool)) == 2


def test_a_lease_whose_holder_never_heard_of_it_ends_by_its_time_to_live(
    pool: RunningPool, faults: Faults
) -> None:
    ask = {"services": list(BOTH), "ttl": 2}
    assert die_of(pool, faults, "admit-after", "POST", "/v1/leases", ask) is None
    eventually(lambda: pool.request("GET", "/v1/leases").body == [], "the lease's end")
    assert assert_consistent(pool) == {}


@pytest.mark.parametrize(
    ("point", "lives"),
    [
        ("bar-before", True),
        ("bar-within", False),
        ("bar-after", False),
        ("ending", False),
        ("ended", False),
        ("forget-within", False),
        ("forget-after", False),
    ],
)
def test_a_release_that_the_server_did_not_survive_can_be_repeated_and_leaves_nothing(
    pool: RunningPool, faults: Faults, point: str, lives: bool
) -> None:
    lease = pool.lease(*BOTH, key="k")
    ask_probe(lease, "write", name="private.txt")
    web = pool.instance(place(lease, "web")["port"])
    path = f"/v1/leases/{lease['lease']}"
    answer = die_of(pool, faults, point, "DELETE", path, None)
    assert answer is None or (answer.status == 204 and not lives)
    assert bool(assert_consistent(pool)) == lives
    if lives:
        assert works(lease)
    assert pool.request("DELETE", path).status == (204 if lives else 404)
    with pytest.raises(NotAuthorised):
        works(lease)
    again = pool.lease(*BOTH, key="k", wait=30)
    assert again["lease"] != lease["lease"]
    assert ask_probe(again, "write", name="own.txt") == ["lock", "own.txt"]
    restarted = pool.instance(web["port"])
    assert restarted["pid"] != web["pid"], "a plain program is never passed on as it was left"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("save-after", "forget-within"),
        ("admit-within", "bar-within"),
    ],
)
def test_a_server_that_dies_again_while_it_recovers_recovers_the_next_time(
    pool: RunningPool, faults: Faults, first: str, second: str
) -> None:
    kept = pool.lease("probe")
    faults.arm(second)
    ask = {"services": list(BOTH), "wait": 30}
    assert die_of(pool, faults, first, "POST", "/v1/leases", ask) is None
    assert not faults.is_armed(second)
    assert list(assert_consistent(pool)) == [kept["lease"]]
    assert works(kept)


def test_a_jump_of_the_wall_clock_ends_no_lease_early_and_keeps_none_for_ever(
    pool: RunningPool, faults: Faults
) -> None:
    """They live by the monotonic clock; only a restart has nothing but the wall clock to go by."""
    year = 365 * 86400.0
    lease = pool.lease("probe", ttl=30)
    for jump in (year, -year):
        faults.set_clock(jump)
        assert pool.request("POST", f"/v1/leases/{lease['lease']}/renew").status == 200
        with pool.leased("probe", ttl=30) as other:
            assert 25 < other["expires_in"] <= 30
            assert works(other)
        left = pool.request("GET", f"/v1/leases/{lease['lease']}").body["expires_in"]
        assert 0 < left <= 30
    short = pool.lease("probe", ttl=1)
    faults.set_clock(-2 * year)
    path = f"/v1/leases/{short['lease']}"
    eventually(lambda: pool.request("GET", path).status == 404, "the end of a short lease")
    assert list(assert_consistent(pool)) == [lease["lease"]]
