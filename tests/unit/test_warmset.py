"""How many instances there should be, from how they were used."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from socketpool.core.backoff import JITTER, Backoff
from socketpool.core.warmset import RATE_SECONDS, Usage, surplus_blocks

WINDOW = 100.0


def test_nothing_is_expected_of_what_is_not_used() -> None:
    usage = Usage(WINDOW)
    assert (usage.ahead(0), usage.peak(0)) == (0, 0)


def test_the_leases_of_one_start_are_expected_at_the_recent_rate() -> None:
    usage = Usage(WINDOW)
    usage.note_start(2.0)
    for tenth in range(1000):  # ten a second for a hundred seconds, all kept
        usage.note_lease(tenth + 1, tenth / 10)
    assert 18 <= usage.ahead(99.9) <= 21
    assert usage.ahead(99.9 + 10 * RATE_SECONDS) == 0, "the rate is forgotten"


def test_one_client_in_a_loop_needs_one_instance_however_fast_it_is() -> None:
    usage = Usage(WINDOW)
    usage.note_start(1.0)
    for number in range(5000):
        usage.note_lease(1, number / 1000)
    assert usage.ahead(5.0) == 1


def test_a_single_lease_now_and_then_has_nothing_grown_ahead() -> None:
    usage = Usage(WINDOW)
    usage.note_start(0.3)
    for minute in range(10):
        usage.note_lease(1, minute * 60.0)
        assert usage.ahead(minute * 60.0) == 0


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(0, 100)), max_size=40))
def test_a_need_is_remembered_for_the_window_and_not_for_twice_as_long(
    needs: list[tuple[float, int]],
) -> None:
    usage = Usage(WINDOW)
    now = 0.0
    noted: list[tuple[float, int]] = []
    for passed, need in needs:
        now += passed
        usage.note_need(need, now)
        noted.append((now, need))
        recent = [n for at, n in noted if now - at <= WINDOW]
        possible = [n for at, n in noted if now - at <= 2 * WINDOW]
        assert max(recent) <= usage.peak(now) <= max(possible)
    assert usage.peak(now + 2 * WINDOW + 1) == 0


def test_starts_are_averaged_and_the_first_counts_whole() -> None:
    usage = Usage(WINDOW)
    usage.note_start(10.0)
    usage.note_need(1000, 0)
    for _ in range(100):
        usage.note_lease(1000, 0)
    assert usage.ahead(0) == 100  # ten a second for ten seconds
    for _ in range(50):
        usage.note_start(1.0)
    assert usage.ahead(0) == 10


def test_the_last_blocks_are_given_up_first_and_what_is_needed_stays() -> None:
    one = [True]
    assert surplus_blocks([one, one, one], 1) == [2, 1]
    assert surplus_blocks([one, [True] * 4, one], 3) == [2, 0]
    assert surplus_blocks([one, [True] * 4], 1) == [1]
    assert surplus_blocks([one], 1) == []
    assert surplus_blocks([], 3) == []


def test_a_block_that_does_not_work_goes_as_soon_as_others_do_enough() -> None:
    assert surplus_blocks([[False], [True]], 1) == [0]
    assert surplus_blocks([[False]], 1) == []
    assert surplus_blocks([[False]], 0) == [0]


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), max_size=8), st.integers(0, 30))
def test_what_stays_does_what_is_needed_if_all_together_did(
    blocks: list[list[bool]], needed: int
) -> None:
    gone = surplus_blocks(blocks, needed)
    assert gone == sorted(set(gone), reverse=True)
    left = sum(sum(block) for index, block in enumerate(blocks) if index not in gone)
    assert left >= min(needed, sum(map(sum, blocks)))


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_delay_doubles_up_to_the_most_with_some_chance_in_it(
    failures: int, chance: float
) -> None:
    backoff = Backoff(first=1.0, max_seconds=300.0)
    whole = min(300.0, 2.0 ** min(failures - 1, 20))
    assert whole * (1 - JITTER) <= backoff.delay(failures, chance) <= whole
