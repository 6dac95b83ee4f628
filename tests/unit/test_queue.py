"""Waiting is fair, bounded, and holds back only those who compete for the same instances."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from socketpool.errors import NoCapacity
from socketpool.server.leases.queue import MAX_WAITING, Waiter, WaitQueue


class Customer(Waiter):
    """Is served when there are as many of each thing as it wants."""

    def __init__(self, shop: Shop, number: int, wants: tuple[str, ...], client: str = "") -> None:
        super().__init__(wants, client)
        self.shop = shop
        self.number = number

    def serve(self) -> bool:
        return self.shop.take(self)


class Shop:
    """So many of each thing, and customers who want several.

    A thing is in stock, starts for the first time, is out on loan, or is being cleaned after one.
    """

    def __init__(self, most: int = 100, **stock: int) -> None:
        self.most = most
        self.stock = Counter(stock)
        self.fresh: Counter[str] = Counter()
        self.cleaned: Counter[str] = Counter()
        self.loans: list[Customer] = []
        self.closed_things: set[str] = set()
        self.quotas: dict[str, int] = {}
        self.served: list[int] = []
        self.queue = WaitQueue(self)

    def idle(self, service: str) -> int:
        return self.stock[service]

    def starting(self, service: str) -> int:
        return self.fresh[service]

    def reach(self, service: str) -> int:
        return self.most - (service in self.closed_things)

    def closed(self, service: str) -> bool:
        return service in self.closed_things

    def allowance(self, client: str) -> int | None:
        quota = self.quotas.get(client)
        return None if quota is None else quota - sum(c.client == client for c in self.loans)

    def there_are(self, thing: str) -> int:
        loaned = sum(customer.needs[thing] for customer in self.loans)
        return self.stock[thing] + self.fresh[thing] + self.cleaned[thing] + loaned

    def customer(self, number: int, *wants: str, client: str = "") -> Customer:
        customer = Customer(self, number, wants, client)
        self.queue.join(customer)
        return customer

    def arrive(self, number: int, *wants: str, client: str = "") -> Customer:
        """Served at once if that is fair, else waits."""
        customer = Customer(self, number, wants, client)
        if self.queue.must_wait(wants, client) or not self.take(customer):
            self.queue.join(customer)
        return customer

    def take(self, customer: Customer) -> bool:
        if not self.closed_things.isdisjoint(customer.needs):
            return True  # and is told so
        if any(self.stock[want] < need for want, need in customer.needs.items()):
            return False
        self.stock.subtract(customer.needs)
        self.loans.append(customer)
        self.served.append(customer.number)
        return True

    def give_back(self, customer: Customer, *, clean: bool = False) -> None:
        self.loans.remove(customer)
        (self.cleaned if clean else self.stock).update(customer.needs)
        self.queue.serve()

    def grow(self) -> None:
        """As the pool does: up to what those who wait need, and the maximum."""
        for thing, demand in self.queue.demand().items():
            coming = self.stock[thing] + self.fresh[thing] + self.cleaned[thing]
            room = self.most - self.there_are(thing)
            self.fresh[thing] += max(0, min(demand - coming, room))
        self.queue.serve()

    def all_are_ready(self) -> None:
        for some in (self.fresh, self.cleaned):
            self.stock.update(some)
            some.clear()
        self.queue.serve()


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


def test_a_later_request_does_not_take_what_one_that_wants_more_needs(shop: Shop) -> None:
    shop.customer(1, "a", "b")
    shop.customer(2, "a")
    shop.stock["a"] = 1
    shop.queue.serve()
    assert shop.served == []
    assert shop.queue.must_wait(("a",), "")
    shop.stock["b"] = 1
    shop.queue.serve()
    assert shop.served == [1]


def test_what_those_before_do_not_need_is_for_those_behind(shop: Shop) -> None:
    shop.customer(1, "a", "b")
    shop.customer(2, "a")
    shop.stock["a"] = 2
    shop.queue.serve()
    assert shop.served == [2]
    assert shop.queue.must_wait(("a",), "")
    shop.stock["a"] = 2
    assert not shop.queue.must_wait(("a",), "")
    assert shop.queue.must_wait(("a", "a"), "")


def test_one_behind_a_request_for_many_is_served_while_those_start(shop: Shop) -> None:
    shop.stock["a"] = 2
    shop.arrive(1, *"aaaaaa")
    shop.customer(2, "a")
    shop.queue.serve()
    assert shop.served == []
    shop.fresh["a"] = 5
    shop.queue.serve()
    assert shop.served == [2]
    assert shop.queue.must_wait(("a",), ""), "what is left is for the first"
    shop.all_are_ready()
    assert shop.served == [2, 1]


def test_what_starts_again_after_a_lease_is_not_counted_upon(shop: Shop) -> None:
    shop.stock["a"] = 1
    shop.arrive(1, "a", "a")
    shop.cleaned["a"] = 5
    shop.customer(2, "a")
    shop.queue.serve()
    assert shop.served == []


def test_a_request_that_no_end_of_a_lease_could_serve_holds_nobody_back() -> None:
    shop = Shop(most=3, a=3)
    shop.customer(1, *"aaaa")
    assert not shop.queue.must_wait(("a",), "")
    assert shop.queue.demand() == {}
    shop.customer(2, "a")
    shop.queue.serve()
    assert shop.served == [2]
    shop.most = 4
    shop.stock["a"] = 3
    assert shop.queue.must_wait(("a",), ""), "now it has its place again"
    assert shop.queue.demand() == {"a": 4}


def test_a_client_at_its_quota_waits_for_itself_alone(shop: Shop) -> None:
    shop.quotas["small"] = 1
    shop.stock["a"] = 3
    first = shop.arrive(1, "a", client="small")
    shop.arrive(2, "a", client="small")
    shop.arrive(3, "a")
    assert shop.served == [1, 3]
    assert shop.queue.demand() == {}
    shop.give_back(first)
    assert shop.served == [1, 3, 2]


def test_of_a_client_s_requests_no_more_count_than_it_may_have(shop: Shop) -> None:
    shop.quotas["small"] = 1
    shop.arrive(1, "a", client="small")
    shop.arrive(2, "a", client="small")
    assert shop.queue.demand() == {"a": 1}
    shop.stock["a"] = 2
    shop.queue.serve()
    assert shop.served == [1]
    assert not shop.queue.must_wait(("a",), "")


def test_all_who_wait_for_a_closed_service_hear_of_it(shop: Shop) -> None:
    shop.customer(1, "a", "a")
    shop.customer(2, "a", "b")
    shop.customer(3, "b")
    shop.closed_things = {"a"}
    shop.queue.serve()
    assert len(shop.queue) == 1


def test_requests_for_something_else_pass_by(shop: Shop) -> None:
    shop.customer(1, "a")
    assert not shop.queue.must_wait(("b",), "")
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
    for number in range(MAX_WAITING):
        shop.customer(number, "a")
    with pytest.raises(NoCapacity, match=str(MAX_WAITING)):
        shop.customer(0, "b")


def test_the_demand_counts_instances(shop: Shop) -> None:
    shop.customer(1, "a", "b", "a")
    shop.customer(2, "a")
    assert shop.queue.demand() == {"a": 3, "b": 1}


_wants = st.lists(st.sampled_from("abc"), min_size=1, max_size=4)


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=40))
def test_among_those_who_want_the_same_the_order_of_arrival_is_kept(
    customers: list[str], deliveries: list[str]
) -> None:
    shop = Shop(a=0, b=0, c=0)
    for number, want in enumerate(customers):
        shop.customer(number, want)
    for thing in deliveries:
        shop.stock[thing] += 1
        shop.queue.serve()
    for thing in "abc":
        served = [n for n in shop.served if customers[n] == thing]
        assert served == [n for n, want in enumerate(customers) if want == thing][: len(served)]
    assert len(shop.queue) == len(customers) - len(shop.served)


class ShopMachine(RuleBasedStateMachine):
    """Customers come and go in any order; nobody starves, and nobody waits for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.shop = Shop(most=5, a=1, b=1, c=1)
        self.shop.quotas["small"] = 2
        self.number = 0

    @rule(wants=_wants, client=st.sampled_from(["", "", "small"]))
    def arrive(self, wants: list[str], client: str) -> None:
        self.number += 1
        self.shop.arrive(self.number, *wants, client=client)

    @precondition(lambda self: len(self.shop.queue) > 0)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiting = list(self.shop.queue._waiters)
        self.shop.queue.leave(waiting[data.draw(st.integers(0, len(waiting) - 1))])
        self.shop.queue.serve()

    @precondition(lambda self: self.shop.loans)
    @rule(data=st.data(), clean=st.booleans())
    def give_back(self, data: st.DataObject, clean: bool) -> None:
        loans = self.shop.loans
        self.shop.give_back(loans[data.draw(st.integers(0, len(loans) - 1))], clean=clean)

    @rule()
    def grow(self) -> None:
        self.shop.grow()

    @rule(thing=st.sampled_from("abc"), fails=st.booleans())
    def one_is_ready_or_fails(self, thing: str, fails: bool) -> None:
        if self.shop.fresh[thing]:
            self.shop.fresh[thing] -= 1
            (self.shop.cleaned if fails else self.shop.stock)[thing] += 1
        elif self.shop.cleaned[thing]:
            self.shop.cleaned[thing] -= 1
            self.shop.stock[thing] += 1
        self.shop.queue.serve()

    @rule(thing=st.sampled_from("abc"))
    def a_stream_of_small_requests_starves_nobody(self, thing: str) -> None:
        """When each lease that there is has ended once, the first has got what it waits for."""
        shop = self.shop
        first = next((c for c in shop.queue._waiters if self.can_be_served(c)), None)
        for loan in list(shop.loans):
            shop.give_back(loan, clean=True)
            self.arrive([thing], "")
            shop.grow()
            shop.all_are_ready()
        shop.grow()
        shop.all_are_ready()
        assert first is None or first not in shop.queue._waiters

    def can_be_served(self, customer: Waiter) -> bool:
        allowance = self.shop.allowance(customer.client)
        return allowance is None or allowance > 0

    @invariant()
    def nobody_waits_for_what_is_left_over(self) -> None:
        """Whoever waits lacks something, or it is reserved for those who came before."""
        shop, reserved, seen = self.shop, Counter[str](), Counter[str]()
        for waiter in shop.queue._waiters:
            allowance = shop.allowance(waiter.client)
            if allowance is not None and allowance <= seen[waiter.client]:
                continue
            assert any(
                shop.stock[want] < need
                or shop.stock[want] - need < reserved[want] - shop.fresh[want]
                for want, need in waiter.needs.items()
            ), waiter.services
            reserved.update(waiter.needs)
            seen[waiter.client] += 1

    @invariant()
    def nothing_is_made_beyond_the_maximum(self) -> None:
        assert all(self.shop.there_are(thing) <= self.shop.most for thing in "abc")
        assert all(count >= 0 for count in self.shop.stock.values())


TestShop = ShopMachine.TestCase
