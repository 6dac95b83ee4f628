"""The pool after two minutes of everything at once; ``script/soak`` does it for longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.soak import soak, start

if TYPE_CHECKING:
    from tests.support.pools import PoolMaker


def test_a_pool_holds_no_more_after_two_minutes_of_mixed_load_than_before(
    new_pool: PoolMaker,
) -> None:
    before, after, load = soak(start(new_pool), 120.0, seed=20_000)
    assert after.grown(before) == {}
    assert (before.leases, before.workspaces, before.trash) == (0, 0, 0)
    for what in ("lease_and_release", "round_trip", "abandon", "kill", "talk_nonsense"):
        assert load.done[what] >= 3, load.done
