"""A shorter run of arbitrary events against a real pool, over HTTP and with ``kill -9``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from socketpool.config.clients import token_hash
from socketpool.errors import NotAuthorised, PoolUnreachable
from tests.support.faultyserver import Faults
from tests.support.invariants import assert_all_free, assert_consistent
from tests.support.pools import PROBE, WEB, PoolMaker, ask_probe, connects, kill
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.pools import Answer, RunningPool

TOKENS = {"": None, "acme": "token-of-acme-" + "a" * 20}
CLIENTS = {"acme": {"token": token_hash(str(TOKENS["acme"])), "services": ["probe"], "leases": 1}}
SERVICES = {"probe": PROBE | {"warm": 2, "max": 2}, "web": WEB | {"warm": 1, "max": 1}}
ASKED = (("probe",), ("web",), ("probe", "web"), ("probe", "probe"))
REFUSALS = {
    (403, "service-forbidden"),
    (409, "key-reused"),
    (429, "quota-exceeded"),
    (503, "no-capacity"),
}
"""All that a sensible request may be answered with besides a lease."""


class RealPoolMachine(RuleBasedStateMachine):
    """What holds of the model holds of the server, its instances and its files."""

    pool: ClassVar[RunningPool]

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, dict[str, Any]] = {}
        self.owner: dict[str, str] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.over: list[dict[str, Any]] = []
        self.restarted = False

    def post(self, client: str, services: tuple[str, ...], key: str, wait: float) -> Answer:
        ask = {"services": list(services), "key": key, "wait": wait, "ttl": 120}
        return self.pool.request("POST", "/v1/leases", ask, token=TOKENS[client])

    def hear(self, client: str, key: str, answer: Answer) -> None:
        if answer.status != 201:
            assert (answer.status, answer.body["code"]) in REFUSALS, answer
            return
        lease = answer.body
        if key and (client, key) in self.keys:
            assert lease["lease"] == self.keys[client, key]
        else:
            taken = {s["port"] for one in self.held.values() for s in one["services"]}
            assert taken.isdisjoint(s["port"] for s in lease["services"])
            assert lease["lease"] not in self.held
        self.held[lease["lease"]] = lease
        self.owner[lease["lease"]] = client
        if key:
            self.keys[client, key] = lease["lease"]

    @rule(
        client=st.sampled_from(["", "", "acme"]),
        services=st.sampled_from(ASKED),
        key=st.sampled_from(["", "", "a"]),
        wait=st.sampled_from([0.0, 2.0]),
    )
    def ask(self, client: str, services: tuple[str, ...], key: str, wait: float) -> None:
        self.hear(client, key, self.post(client, services, key, wait))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def wait_for_what_is_given_back(self, data: st.DataObject) -> None:
        lease = self.held[data.draw(st.sampled_from(sorted(self.held)))]
        services = tuple(s["service"] for s in lease["services"])
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(self.post, "", services, "", 60.0)
            self.give_back(lease["lease"])
            answer = waiting.result(90)
        assert answer.status == 201, answer.body
        self.hear("", "", answer)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        lease = self.held[data.draw(st.sampled_from(sorted(self.held)))]
        if any(s["service"] == "probe" for s in lease["services"]):
            files = ask_probe(lease, "write", name=lease["lease"])
            assert set(files) <= {lease["lease"], "lock"}, "nobody else's"

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(sorted(self.held)))
        path, token = f"/v1/leases/{lease}/renew", TOKENS[self.owner[lease]]
        assert self.pool.request("POST", path, token=token).status == 200

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.give_back(data.draw(st.sampled_from(sorted(self.held))))

    def give_back(self, lease: str) -> None:
        path, token = f"/v1/leases/{lease}", TOKENS[self.owner[lease]]
        assert self.pool.request("DELETE", path, token=token).status == 204
        assert self.pool.request("DELETE", path, token=token).status == 404
        self.over.append(self.held.pop(lease))
        self.keys = {key: held for key, held in self.keys.items() if held != lease}

    @precondition(lambda self: self.over)
    @rule()
    def come_too_late(self) -> None:
        lease = self.over[-1]
        if any(s["service"] == "probe" for s in lease["services"]):
            # The instance may have been killed just before.
            with pytest.raises((NotAuthorised, PoolUnreachable)):
                ask_probe(lease, "write", name="late")

    @rule(data=st.data())
    def kill_an_instance(self, data: st.DataObject) -> None:
        alive = [i for i in self.pool.instances() if i["state"] in {"idle", "leased"}]
        if not alive:
            return
        victim = data.draw(st.sampled_from(alive))
        kill(victim["pid"])
        port = victim["port"]
        eventually(lambda: self.pool.instance(port)["pid"] not in {0, victim["pid"]}, "another")
        eventually(lambda: connects(self.pool.host, port), "it to listen")

    @precondition(lambda self: not self.restarted)
    @rule()
    def kill_the_server(self) -> None:
        self.restarted = True
        before = self.pool.server_pid()
        kill(before)
        self.pool.await_server(after=before)

    @invariant()
    def everybody_agrees_on_who_holds_what(self) -> None:
        ports = assert_consistent(self.pool)
        told = {i: [s["port"] for s in one["services"]] for i, one in self.held.items()}
        assert ports == told

    def teardown(self) -> None:
        """Everything comes back."""
        for lease in list(self.held):
            self.give_back(lease)
        assert_all_free(self.pool)


def test_whatever_happens_to_a_real_pool_nothing_is_leased_twice_and_nothing_is_lost(
    new_pool: PoolMaker,
) -> None:
    RealPoolMachine.pool = new_pool.start(SERVICES, clients=CLIENTS)
    Faults(RealPoolMachine.pool)  # for a server that may be killed often
    run_state_machine_as_test(
        RealPoolMachine,
        settings=settings(
            max_examples=3,
            stateful_step_count=18,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
