"""Connections that are cut in the middle: the step goes on where the other side has got to."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from socketpool.client.dial import dial_tcp
from socketpool.client.reporter import Reporter
from socketpool.client.roundtrip import RoundTrip, RunOptions
from socketpool.client.single import SingleStep
from socketpool.protocol.frames import VERSION, Kind
from tests.support.pools import PoolMaker, place, shipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.pools import RunningPool

SIZE = 64 << 20
CUTS = 50
RECEIPT = struct.pack(">BBQ", VERSION, Kind.RECEIPT, 0)


class CuttingRelay:
    """A relay that resets connections after random numbers of bytes, ``cuts`` times in all."""

    def __init__(self, cuts: int, *, towards_service: bool) -> None:
        self.cuts = cuts
        self.relayed = 0
        """Bytes passed on in the direction of interest."""
        self._towards_service = towards_service
        self._random = random.Random(4)
        self._lock = threading.Lock()

    def dial(self, host: str, port: int) -> socket.socket:
        """A connection to there that may be cut."""
        far = dial_tcp(host, port)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            middle, _ = listener.accept()
        threading.Thread(target=self._relay, args=(middle, far), daemon=True).start()
        return near

    def _relay(self, middle: socket.socket, far: socket.socket) -> None:
        with self._lock:
            budget = [self._random.randint(1, SIZE // CUTS) if self.cuts > 0 else 1 << 40]
        towards, back = self._towards_service, not self._towards_service
        pumps = [
            threading.Thread(target=self._pump, args=(middle, far, budget, towards)),
            threading.Thread(target=self._pump, args=(far, middle, budget, back)),
        ]
        with middle, far:
            for pump in pumps:
                pump.start()
            for pump in pumps:
                pump.join()

    def _pump(
        self, source: socket.socket, target: socket.socket, budget: list[int], counted: bool
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                if counted:
                    self.relayed += len(data)
                    budget[0] -= len(data)
                    if budget[0] <= 0:
                        with self._lock:
                            self.cuts -= 1
                        break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class CuttingAfterReceipt(CuttingRelay):
    """Cuts the first connection between a file's receipt and the service's verdict."""

    def __init__(self, *, towards_service: bool) -> None:
        super().__init__(0, towards_service=towards_service)
        self.receipts = 0

    def _pump(
        self, source: socket.socket, target: socket.socket, budget: list[int], counted: bool
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.relayed += len(data) if counted else 0
                before, receipt, after = (data, b"", b"") if counted else data.partition(RECEIPT)
                if budget[0] <= 0:
                    break  # the other way has just seen the receipt
                if receipt:
                    self.receipts += 1
                if self.receipts == 1 and receipt:
                    budget[0] = 0
                    target.sendall(before + receipt)
                    break
                target.sendall(before + receipt + after)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def pool() -> Iterator[RunningPool]:
    touch = (
        "from socketpool.rsi import VendorServer\n\n"
        "class Vendor(VendorServer):\n"
        "    def transfer(self):\n"
        "        for path in self.members.values():\n"
        "            with path.open('r+b') as file:\n"
        "                file.write(b'processed')\n"
    )
    services = {name: shipped(name) for name in ("upload", "download")}
    with PoolMaker() as maker:
        yield maker.start(services | {"vendor": shipped("vendor", touch)})


@pytest.fixture(scope="module")
def appending_pool() -> Iterator[RunningPool]:
    append = (
        "from socketpool.rsi import VendorServer\n\n"
        "class Vendor(VendorServer):\n"
        "    def transfer(self):\n"
        "        for path in self.members.values():\n"
        "            path.write_text(path.read_text() + {text!r})\n"
        "        self.send_line_block('said')\n"
        "        self.report('appended')\n"
    )
    services = {name: shipped(name) for name in ("upload", "download")}
    for name, text in (("append", "+"), ("other", "-")):
        services[name] = shipped("vendor", append.format(text=text))
    with PoolMaker() as maker:
        yield maker.start(services)


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_fifty_cuts_cost_a_few_percent_and_no_byte_of_the_result(
    pool: RunningPool, tmp_path: Path, direction: str
) -> None:
    content = os.urandom(SIZE)
    archive = tmp_path / "big.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("data.js", content)
        out.writestr("kept.png", b"stays at home")
    relay = CuttingRelay(CUTS, towards_service=direction == "upload")
    notes: list[str] = []

    class Notes(Reporter):
        def note(self, text: str) -> None:
            notes.append(text)

    summary = RoundTrip(
        pool.client(),
        archive,
        ["upload", "vendor", "download"],
        RunOptions(),
        reporter=Notes(),
        dial=relay.dial,
    ).run()

    assert summary.changed == 1
    assert relay.cuts == 0
    assert len(notes) >= CUTS
    with zipfile.ZipFile(archive) as file:
        assert file.read("data.js") == b"processed" + content[9:]
        assert file.read("kept.png") == b"stays at home"
    assert relay.relayed <= SIZE * 1.1
    assert pool.request("GET", "/v1/leases").body == []


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_cut_between_receipt_and_verdict_repeats_the_step_but_not_the_bytes(
    pool: RunningPool, tmp_path: Path, direction: str
) -> None:
    content = os.urandom(8 << 20)
    archive = tmp_path / "big.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("data.js", content)
    relay = CuttingAfterReceipt(towards_service=direction == "upload")
    RoundTrip(
        pool.client(), archive, ["upload", "vendor", "download"], RunOptions(), dial=relay.dial
    ).run()
    assert relay.receipts == 2
    assert relay.relayed < len(content) * 1.1
    with zipfile.ZipFile(archive) as file:
        assert file.read("data.js") == b"processed" + content[9:]


class CuttingVerdicts(CuttingRelay):
    """Cuts every connection whose verdict is the first one for its step."""

    def __init__(self) -> None:
        super().__init__(0, towards_service=False)
        self.verdicts = 0

    def _pump(
        self, source: socket.socket, target: socket.socket, budget: list[int], counted: bool
    ) -> None:
        del budget
        with suppress(OSError):
            while data := source.recv(65536):
                if counted and b'"event": "done"' in data:
                    self.verdicts += 1
                    if self.verdicts % 2:
                        break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_a_step_whose_verdict_was_lost_is_not_applied_twice(
    appending_pool: RunningPool, tmp_path: Path
) -> None:
    """Four vendor steps, two of them of one service; each is attempted twice and done once."""
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("a.html", "text")
    relay = CuttingVerdicts()

    summary = RoundTrip(
        appending_pool.client(),
        archive,
        ["upload", "append", "other", "append", "append", "download"],
        RunOptions(),
        dial=relay.dial,
    ).run()

    with zipfile.ZipFile(archive) as file:
        assert file.read("a.html") == b"text+-++"
    assert relay.verdicts == 2 * 6
    names = ("append", "other", "append", "append")
    assert summary.reports == [f"{n}: {said}" for n in names for said in ("said", "appended")]


def test_each_call_of_the_single_step_is_a_step_unless_the_end_of_the_last_is_unknown(
    appending_pool: RunningPool, tmp_path: Path
) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("a.html", "text")

    class Interrupting(CuttingVerdicts):
        """The user interrupts the command when the connection is lost."""

        def dial(self, host: str, port: int) -> socket.socket:
            if self.verdicts % 2:
                raise KeyboardInterrupt
            return super().dial(host, port)

    with appending_pool.leased("upload", "append", "other", "download") as lease:

        def step(service: str, dial: Callable[[str, int], socket.socket] = dial_tcp) -> SingleStep:
            found = place(lease, service)
            return SingleStep(found["host"], found["port"], lease["token"], archive, dial=dial)

        step("upload").upload()
        for service in ("append", "other", "append"):
            step(service).vendor()
        with pytest.raises(KeyboardInterrupt):
            step("append", Interrupting().dial).vendor()
        assert len(list(tmp_path.iterdir())) == 3, "archive, manifest and the note of the step"
        step("append").vendor()
        step("download").download()
    with zipfile.ZipFile(archive) as file:
        assert file.read("a.html") == b"text+-++"
    assert list(tmp_path.iterdir()) == [archive]
