"""Clients that race for one workspace: the steps of one lease overlapped, reordered and repeated.

What each step tells must be what it would have told in some serial order of all of them, in which a
step that had ended before another began comes first.
"""

from __future__ import annotations

import random
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from socketpool.client.answers import LeasedService, parse_record
from socketpool.client.dial import dial_tcp
from socketpool.client.serviceclients import DownloadClient, ServiceClient, VendorClient
from socketpool.client.single import SingleStep
from socketpool.errors import ArchiveError, ServiceFailed
from socketpool.protocol.blocks import send_file_block
from socketpool.protocol.filesource import OpenFile
from tests.support.archives import canonical
from tests.support.pools import PoolMaker, place, shipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.pools import RunningPool

MEMBERS = 12
CLIENTS, STEPS = 4, 3

APPENDS = """
import time
from socketpool.rsi import VendorServer

class Vendor(VendorServer):
    def transfer(self):
        for path in self.members.values():
            with path.open("a") as file:
                file.write({text!r})
            time.sleep(0.005)
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[RunningPool]:
    services = {name: shipped(name) for name in ("upload", "download")}
    for name, text in (("vendor", "!"), ("other", "?")):
        services[name] = shipped("vendor", APPENDS.format(text=text))
    with PoolMaker() as maker:
        yield maker.start(services)


# -- one step, and what it would have done in a serial order -----------------------------------


class Step(NamedTuple):
    """A step that was taken: when, and what it told."""

    what: str
    began: float
    ended: float
    told: str


class State(NamedTuple):
    """What is in the workspace: the upload, and what all vendor steps since made of it."""

    uploaded: str = ""
    processed: str = ""


NOTHING = "nothing"
"""How the refusals begin."""


def apply(state: State, what: str) -> tuple[State, str]:
    """The step by itself: what is in the workspace after it, and what it tells."""
    match what:
        case "a" | "b":
            return State(what), "done"
        case "download":
            return state, state.processed or NOTHING
    if not state.uploaded:
        return state, NOTHING
    before = state.processed or state.uploaded
    return State(state.uploaded, before + ("!" if what == "vendor" else "?")), "done"


def is_serial(steps: frozenset[Step], state: State, dead_ends: set[Any]) -> bool:
    """Whether an order of the steps explains what all of them told."""
    if not steps:
        return True
    if (steps, state) in dead_ends:
        return False
    first_end = min(step.ended for step in steps)
    for step in steps:
        if step.began <= first_end:
            after, told = apply(state, step.what)
            if told == step.told and is_serial(steps - {step}, after, dead_ends):
                return True
    dead_ends.add((steps, state))
    return False


# -- taking steps ------------------------------------------------------------------------------


class Uploads(ServiceClient):
    """Sends an archive as it is."""

    def __init__(self, archive: Path) -> None:
        super().__init__()
        self._archive = archive

    def transfer(self) -> None:
        with self._archive.open("rb") as file:
            send_file_block(self.stream, OpenFile(file.fileno(), self._archive.stat().st_size))
        self.finish()


def text_of(archive: Path) -> str:
    """What all of the members hold; a mixture is what nobody may ever see."""
    with zipfile.ZipFile(archive) as file:
        assert len(file.namelist()) == MEMBERS
        (text,) = {file.read(name) for name in file.namelist()}
    return text.decode()


def take(lease: dict[str, Any], what: str, folder: Path) -> Step:
    """One step of the lease."""
    returned = folder / f"{time.monotonic_ns()}-{random.random()}.zip"
    kind = "upload" if what in {"a", "b"} else what
    service_client: ServiceClient = VendorClient()
    if kind == "upload":
        service_client = Uploads(folder / f"{what}.zip")
    elif kind == "download":
        service_client = DownloadClient(returned)
    leased = parse_record(LeasedService, place(lease, kind))
    service_client.assign(leased, lease["token"], dial_tcp, lambda *_: None)
    began, told = time.monotonic(), "done"
    try:
        service_client.connect()
        service_client.transfer()
    except ServiceFailed as error:
        told = error.message.partition(" was ")[0]
    finally:
        service_client.close()
    ended = time.monotonic()
    if returned.exists():
        told = text_of(returned)
    return Step(what, began, ended, told)


def test_what_can_not_be_serial_is_found_out() -> None:
    """The judge itself: a download that shows what no order of these steps makes."""
    upload, vendor = Step("a", 0, 1, "done"), Step("vendor", 2, 3, "done")

    def judged(*steps: Step) -> bool:
        return is_serial(frozenset(steps), State(), set())

    assert judged(upload, vendor, Step("download", 4, 5, "a!"))
    assert judged(upload, vendor, Step("download", 0, 9, NOTHING))
    assert not judged(upload, vendor, Step("download", 4, 5, NOTHING))
    assert not judged(upload, vendor, Step("download", 4, 5, "a!!"))
    assert not judged(upload, vendor, Step("download", 4, 5, "b!"))
    assert judged(upload, vendor, Step("vendor", 2, 9, "done"), Step("download", 10, 11, "a!!"))
    assert not judged(upload, vendor, Step("vendor", 2, 9, "done"), Step("download", 10, 11, "a!"))


@pytest.mark.parametrize("seed", range(8))
def test_steps_in_any_disorder_tell_what_some_serial_order_would(
    pool: RunningPool, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    for name in ("a", "b"):
        members = {b"%d.html" % at: name.encode() for at in range(MEMBERS)}
        (tmp_path / f"{name}.zip").write_bytes(canonical(members))
    choice = ("a", "b", "vendor", "vendor", "other", "download", "download")

    with pool.leased("upload", "vendor", "other", "download") as lease:

        def client(steps: list[str]) -> list[Step]:
            return [take(lease, what, tmp_path) for what in steps]

        plans = [[chance.choice(choice) for _ in range(STEPS)] for _ in range(CLIENTS)]
        plans[0][0] = "a"
        with ThreadPoolExecutor(CLIENTS) as clients:
            taken = [step for steps in clients.map(client, plans) for step in steps]
        taken.append(take(lease, "download", tmp_path))
    assert len(taken) == CLIENTS * STEPS + 1
    assert is_serial(frozenset(taken), State(), set()), sorted(taken, key=lambda step: step.began)


def test_two_jobs_on_one_lease_end_well_or_are_refused_but_never_mixed(
    pool: RunningPool, tmp_path: Path
) -> None:
    """Each takes the others' steps in the middle of its own."""

    def job(lease: dict[str, Any], archive: Path) -> str:
        def step(service: str) -> SingleStep:
            found = place(lease, service)
            return SingleStep(found["host"], found["port"], lease["token"], archive)

        try:
            step("upload").upload()
            step("vendor").vendor()
            step("download").download()
        except (ArchiveError, ServiceFailed):
            return "refused"
        return "done"

    outcomes = []
    for attempt in range(4):
        archives = [tmp_path / f"{attempt}-{name}.zip" for name in ("one", "two")]
        for archive in archives:
            with zipfile.ZipFile(archive, "w") as out:
                for at in range(MEMBERS):
                    out.writestr(f"{archive.stem}-{at}.html", archive.stem)
        with pool.leased("upload", "vendor", "download") as lease, ThreadPoolExecutor(2) as pair:
            ends = list(pair.map(lambda archive: job(lease, archive), archives))
        for archive, end in zip(archives, ends, strict=True):
            # The other's vendor step is one more, if it worked on this upload.
            texts = ["!", "!!"] if end == "done" else [""]
            assert text_of(archive) in {archive.stem + text for text in texts}
        outcomes += ends
    assert "done" in outcomes
