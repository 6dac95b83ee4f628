"""Waiting is fair for each service, and bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socketpool.errors import NoCapacity
from socketpool.server.queue import MOST_WAITING, Waiter, WaitQueue


class Customer(Waiter):
    """Is served when there is one of each thing that it wants."""

    def __init__(self, shop: Shop, number: int, wants: tuple[str, ...]) -> None:
        super().__init__(wants, "")
        self.shop = shop
        self.number = number

    def serve(self) -> bool:
        stock = self.shop.stock
        if not all(stock[want] for want in self.services):
            return False
        for want in self.services:
            stock[want] -= 1
        self.shop.served.append(self.number)
        return True


class Shop:
    """So many of each thing, and customers who want several."""

    def __init__(self, **stock: int) -> None:
        self.stock = stock
        self.queue = WaitQueue()
        self.served: list[int] = []

    def customer(self, number: int, *wants: str) -> Customer:
        customer = Customer(self, number, wants)
        self.queue.join(customer)
        return customer


@pytest.fixture
def shop() -> Shop:
    return Shop(a=0, b=0)


def test_who_came_first_is_served_first(shop: Shop) -> None:
    for number in range(3):
        shop.customer(number, "a")
    shop.stock["a"] = 2
    shop.queue.serve()
    assert shop.served == [0, 1]
    assert len(shop.queue) == 1


def test_a_later_request_does_not_overtake_one_that_wants_more(shop: Shop) -> None:
    shop.customer(1, "a", "b")
    shop.customer(2, "a")
    shop.stock["a"] = 1
    shop.queue.serve()
    assert shop.served == []
    assert shop.queue.must_wait(("a",))
    shop.stock["b"] = 1
    shop.queue.serve()
    assert shop.served == [1]


def test_requests_for_something_else_pass_by(shop: Shop) -> None:
    shop.customer(1, "a")
    assert not shop.queue.must_wait(("b",))
    shop.customer(2, "b")
    shop.stock["b"] = 1
    shop.queue.serve()
    assert shop.served == [2]


def test_who_left_is_not_served(shop: Shop) -> None:
    gone = shop.customer(1, "a")
    shop.customer(2, "a")
    shop.queue.leave(gone)
    shop.queue.leave(gone)
    shop.stock["a"] = 5
    shop.queue.serve()
    assert shop.served == [2]
    assert shop.stock["a"] == 4


def test_a_place_tells_how_many_are_before(shop: Shop) -> None:
    shop.customer(0, "a")
    shop.customer(1, "b")
    assert shop.queue.join(Customer(shop, 2, ("a",))) == 2


def test_the_queue_is_bounded(shop: Shop) -> None:
    for number in range(MOST_WAITING):
        shop.customer(number, "a")
    with pytest.raises(NoCapacity, match=str(MOST_WAITING)):
        shop.customer(0, "b")


def test_the_demand_counts_who_wants_what(shop: Shop) -> None:
    shop.customer(1, "a", "b")
    shop.customer(2, "a")
    assert shop.queue.demand() == {"a": 2, "b": 1}


_wants = st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True)


@given(st.lists(_wants, max_size=12), st.lists(st.sampled_from("abc"), max_size=40))
def test_among_those_who_want_a_thing_the_order_of_arrival_is_kept(
    customers: list[list[str]], deliveries: list[str]
) -> None:
    shop = Shop(a=0, b=0, c=0)
    for number, wants in enumerate(customers):
        shop.customer(number, *wants)
    for thing in deliveries:
        shop.stock[thing] += 1
        shop.queue.serve()
    for thing in "abc":
        served = [n for n in shop.served if thing in customers[n]]
        assert served == [n for n, wants in enumerate(customers) if thing in wants][: len(served)]
    assert len(shop.queue) == len(customers) - len(shop.served)
