"""An instance has nothing of another that had its port before."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from tests.support.invariants import assert_consistent
from tests.support.pools import PROBE, WEB, PoolMaker, run_tool
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.pools import RunningPool

RETRY = {"retry_first": "200ms", "retry_most": "1s", "port_rest": "100ms"}


def successor(pool: RunningPool, service: str, before: str, state: str) -> dict[str, Any]:
    """The instance of another name, once it is in this state."""

    def found() -> dict[str, Any] | None:
        others = [i for i in pool.instances(service) if i["instance"] != before]
        return next((i for i in others if i["state"] == state), None)

    return eventually(found, f"another {service} {state}; instances: {pool.instances()}")


def await_another_process(pool: RunningPool, before: dict[str, Any]) -> None:
    old = {0, before["pid"]}
    eventually(lambda: pool.instance(before["port"])["pid"] not in old, "another process")


def test_after_a_group_was_removed_its_replacement_is_restarted_after_each_lease(
    new_pool: PoolMaker,
) -> None:
    pool = new_pool.start(
        {"web": WEB | {"warm": 1, "max": 1}, "probe": PROBE | {"warm": 1, "max": 1}},
        instances=RETRY,
    )
    (before,) = pool.await_idle("web", 1)
    group = before["instance"].partition(":")[0]
    pool.supervisorctl("stop", f"{group}:*")
    pool.supervisorctl("remove", group)
    now = successor(pool, "web", before["instance"], "idle")
    assert now["port"] == before["port"]
    for _ in range(2):
        pool.release(pool.lease("web", wait=60))
        await_another_process(pool, now)
        now = pool.await_state(now["port"], "idle")
    assert_consistent(pool)


def test_a_new_service_s_instance_does_not_show_the_log_of_the_one_before_it(
    new_pool: PoolMaker,
) -> None:
    looping = WEB | {"command": ["{python}", "-c", "import sys; sys.exit('the old reason')"]}
    sleeping = WEB | {
        "command": ["{python}", "-c", "import time; time.sleep(1000)"],
        "readiness": {"start": "60s"},
    }
    pool = new_pool.start({"old": looping | {"warm": 1, "max": 1}}, instances=RETRY)
    (before,) = pool.instances("old")
    eventually(lambda: pool.instance(before["port"])["last_words"], "the lines of its log")
    shutil.rmtree(pool.folder / "services" / "old")
    pool.edit_service("kept", **WEB | {"warm": 0, "max": 1})
    assert run_tool("socketpool", "reload", "--state-dir", pool.state).returncode == 0
    eventually(lambda: pool.instances("old") == [], "the old service's end")
    pool.edit_service("new", **sleeping | {"warm": 1, "max": 1})
    assert run_tool("socketpool", "reload", "--state-dir", pool.state).returncode == 0
    now = successor(pool, "new", before["instance"], "starting")
    assert now["port"] == before["port"]
    assert now["last_words"] == []
