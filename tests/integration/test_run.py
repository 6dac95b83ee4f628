"""``socketpool run``: a program with leased services around it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support.pools import (
    PROBE,
    TOOLS,
    WEB,
    clean_environment,
    connects,
    ended,
    kill,
    run_tool,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.pools import PoolMaker, RunningPool

TELLS = (
    "import json, os; print(json.dumps({n: v for n, v in os.environ.items() "
    "if n.startswith(('WEB', 'PROBE', 'SOCKETPOOL_'))}), flush=True)"
)
TELLS_AND_STAYS = f"{TELLS}; import time; time.sleep(600)"


def run(
    pool: RunningPool, *arguments: object, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return run_tool("socketpool", "run", "--state-dir", pool.state, *arguments, env=env)


@contextmanager
def running(pool: RunningPool, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """``socketpool run`` of a program that stays, and the variables that it got."""
    with subprocess.Popen(
        [
            *map(str, (TOOLS / "socketpool", "run", "--state-dir", pool.state, *arguments)),
            *("--", sys.executable, "-c", TELLS_AND_STAYS),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(pool.folder),
    ) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def is_live(pool: RunningPool, lease_id: str) -> bool:
    return pool.request("GET", f"/v1/leases/{lease_id}").status == 200


def test_a_program_finds_its_services_and_they_answer(shared_pool: RunningPool) -> None:
    code = (
        "import os, sys, socket\n"
        "for name in ('WEB', 'WEB_2', 'PROBE'):\n"
        "    address = os.environ[name + '_HOST'], int(os.environ[name + '_PORT'])\n"
        "    socket.create_connection(address).close()\n"
        "    assert os.environ[name + '_URL'] == 'tcp://%s:%d' % address\n"
        "print(os.environ['SOCKETPOOL_LEASE'], sys.argv[1:])"
    )
    done = run(shared_pool, "web", "probe", "web", "--", sys.executable, "-c", code, "--", "-x")
    assert done.returncode == 0, done.stderr
    lease_id, _, arguments = done.stdout.strip().partition(" ")
    assert arguments == "['--', '-x']"
    assert done.stderr == ""
    assert not is_live(shared_pool, lease_id)


@pytest.mark.parametrize(
    ("program", "code", "says"),
    [
        (["sh", "-c", "exit 3"], 3, ""),
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["no-such-program"], 127, "no program is named 'no-such-program'"),
        ([os.devnull], 126, "can't be run: Permission denied"),
    ],
)
def test_the_exit_code_is_the_programs_and_the_lease_is_released(
    shared_pool: RunningPool, program: list[str], code: int, says: str
) -> None:
    done = run(shared_pool, "web", "--", *program)
    assert done.returncode == code
    assert says in done.stderr
    assert shared_pool.request("GET", "/v1/leases").body == []


def test_without_a_program_nothing_is_leased(shared_pool: RunningPool) -> None:
    for arguments in (["web"], ["web", "--"], ["web", "pytest"]):
        done = run(shared_pool, *arguments)
        assert done.returncode == 2
        assert "socketpool run web" in done.stderr
    done = run(shared_pool, "--", "true")
    assert done.returncode == 2
    assert "SERVICES" in done.stderr


def test_services_that_are_not_there_are_refused_before_the_program_runs(
    shared_pool: RunningPool,
) -> None:
    done = run(shared_pool, "nope", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (2, "")
    assert "known services" in done.stderr
    done = run(shared_pool, *["web"] * 5, "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (2, "")
    assert "never more than 4 instances of web" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_program_and_releases_the_lease(
    shared_pool: RunningPool, number: signal.Signals
) -> None:
    with running(shared_pool, "web") as (process, told):
        lease_id = told["SOCKETPOOL_LEASE"]
        assert is_live(shared_pool, lease_id)
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    assert not is_live(shared_pool, lease_id)


def test_the_lease_is_renewed_while_the_program_runs(shared_pool: RunningPool) -> None:
    with running(shared_pool, "web", "--ttl", "1s") as (process, told):
        path = f"/v1/leases/{told['SOCKETPOOL_LEASE']}"
        seen: list[float] = []

        def renewed_twice() -> bool:
            answer = shared_pool.request("GET", path)
            assert answer.status == 200, "the lease ran out"
            seen.append(answer.body["expires_in"])
            return sum(b > a for a, b in itertools.pairwise(seen)) >= 2

        eventually(renewed_twice, "two renewals")
        process.terminate()
        process.wait(30)


def test_a_program_whose_lease_ended_is_stopped_and_says_so(shared_pool: RunningPool) -> None:
    with running(shared_pool, "web", "--ttl", "1s") as (process, told):
        shared_pool.release({"lease": told["SOCKETPOOL_LEASE"]})
        assert process.wait(30) == 5
        assert process.stderr is not None
        said = process.stderr.read()
    assert told["SOCKETPOOL_LEASE"] in said
    assert "ended while" in said


def test_when_we_are_killed_the_lease_runs_out(shared_pool: RunningPool) -> None:
    with running(shared_pool, "web", "--ttl", "1s") as (process, told):
        (program,) = psutil.Process(process.pid).children()
        kill(process.pid)
        eventually(lambda: not is_live(shared_pool, told["SOCKETPOOL_LEASE"]), "the lease's end")
        program.kill()


def test_the_pool_server_may_be_killed_while_the_program_runs(new_pool: PoolMaker) -> None:
    pool = new_pool.start({"web": WEB, "probe": PROBE})
    with running(pool, "web", "probe", "--ttl", "3s") as (process, told):
        lease_id = told["SOCKETPOOL_LEASE"]
        for _ in range(2):
            before = pool.server_pid()
            kill(before)
            pool.await_server(after=before)

        def alive() -> bool:
            try:
                return is_live(pool, lease_id)
            except OSError:
                return False

        eventually(alive, "the lease after the restarts")
        assert process.poll() is None
        assert connects(told["WEB_HOST"], int(told["WEB_PORT"]))
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
        assert not is_live(pool, lease_id)
        assert ended(before)


def test_a_fresh_pool_serves_many_of_one_service_and_one_behind_them(
    new_pool: PoolMaker,
) -> None:
    pool = new_pool.start({"web": WEB | {"warm": 1, "max": 8}})
    five = run(pool, *["web"] * 5, "--wait", "60", "--", sys.executable, "-c", TELLS)
    assert five.returncode == 0, five.stderr
    told = json.loads(five.stdout)
    ports = {value for name, value in told.items() if name.startswith("WEB") and "PORT" in name}
    assert len(ports) == 5
    with ThreadPoolExecutor(1) as thread:
        many = thread.submit(run, pool, *["web"] * 8, "--wait", "60", "--", "true")
        one = run(pool, "web", "--wait", "60", "--", "true")
        assert many.result().returncode == 0
    assert one.returncode == 0, one.stderr


def test_a_request_that_can_t_be_met_yet_holds_back_no_more_than_it_needs(
    new_pool: PoolMaker,
) -> None:
    services = {"web": WEB | {"warm": 2, "max": 2}, "probe": PROBE | {"warm": 1, "max": 1}}
    pool = new_pool.start(services)

    def is_refused() -> bool:
        answer = pool.request("POST", "/v1/leases", {"services": ["web"], "wait": 0})
        if answer.status == 201:
            pool.release(answer.body)
        return answer.status == 503

    with ThreadPoolExecutor(1) as thread:
        with pool.leased("probe"), pool.leased("web", wait=60):
            asked = {"services": ["web", "probe"], "wait": 60}
            both = thread.submit(pool.request, "POST", "/v1/leases", asked)
            eventually(is_refused, "the idle one to be reserved")
        with pool.leased("web", wait=60):
            answer = both.result(60)
    assert answer.status == 201
