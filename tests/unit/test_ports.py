"""Port ranges and the search for free ports."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socketpool.core.ports import HIGHEST_PORT, LOWEST_POOL_PORT, PortRange, free_runs

port = st.integers(LOWEST_POOL_PORT, HIGHEST_PORT)
ranges = st.tuples(port, port).map(lambda pair: PortRange(min(pair), max(pair)))
small_ranges = st.tuples(st.integers(2000, 2030), st.integers(0, 30)).map(
    lambda pair: PortRange(pair[0], pair[0] + pair[1])
)


@given(ranges)
def test_a_range_reads_back_from_its_text(ports: PortRange) -> None:
    assert PortRange.parse(str(ports)) == ports


@given(ranges, st.integers(0, 70000))
def test_containment_length_and_iteration_agree(ports: PortRange, number: int) -> None:
    assert (number in ports) == (number in range(ports.first, ports.last + 1))
    assert len(ports) == len(list(ports))


@given(small_ranges, small_ranges)
def test_ranges_overlap_exactly_when_they_share_a_port(one: PortRange, other: PortRange) -> None:
    assert one.overlaps(other) == bool(set(one) & set(other))
    assert one.overlaps(other) == other.overlaps(one)


@given(small_ranges, st.sets(st.integers(1990, 2070)), st.integers(0, 80))
def test_free_runs_are_the_lowest_free_ports_in_maximal_runs(
    ports: PortRange, taken: set[int], count: int
) -> None:
    runs = free_runs(ports, taken, count)
    found = [p for run in runs for p in run]
    assert found == [p for p in ports if p not in taken][:count]
    assert all(a.stop < b.start for a, b in itertools.pairwise(runs))


@pytest.mark.parametrize(
    "text",
    ["", "21000", "21000-", "-21000", "a-b", "21000-21499-3", "1e3-2e3", "21000:21499", "٢١-٣٠"],
)
def test_what_is_no_range_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="21000-21499"):
        PortRange.parse(text)


@pytest.mark.parametrize("text", ["80-90", "1023-2000", "2000-1999", "2000-65536", "0-0"])
def test_a_range_that_no_pool_can_own_is_refused_with_its_bounds(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not within|above the last"):
        PortRange.parse(text)
