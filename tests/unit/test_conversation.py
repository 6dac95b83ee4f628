"""Lines and files within the work of a session, between a service and the shipped clients."""

from __future__ import annotations

import hashlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from socketpool.client.serviceclients import VendorClient
from socketpool.errors import FileRefused, SocketpoolError
from socketpool.protocol.frames import MAX_LINE_BYTES
from socketpool.rsi import VendorServer
from socketpool.rsi.conversation import NothingSent, NotOffered, conversation_with
from socketpool.testing import process

if TYPE_CHECKING:
    from pathlib import Path

MEMBERS = {"a.txt": b"text"}


def test_a_line_and_a_file_for_the_shipped_client_are_told_in_its_summary() -> None:
    class Speaks(VendorServer):
        def transfer(self) -> None:
            self.send_line_block("begun")
            self.progress(1, 1)
            assert (
                self.send_file_block(self.members["a.txt"]) == hashlib.sha256(b"text").hexdigest()
            )
            self.members["a.txt"].write_text("done")
            self.report("ended")

    done = process(Speaks, MEMBERS)
    assert done.changed == {"a.txt": b"done"}
    assert done.report == ["begun", "sent a file of 4 bytes, which was not kept", "ended"]


def test_what_the_shipped_client_has_not_is_an_error_that_the_vendor_may_handle() -> None:
    class Asks(VendorServer):
        def transfer(self) -> None:
            with pytest.raises(NothingSent, match="asked for a line, and the client has none"):
                self.read_line_block()
            with pytest.raises(NothingSent, match="asked for a file"):
                self.write_file_block(self.workspace.root / "wanted")
            self.send_line_block("went on")
            self.read_line_block()

    with pytest.raises(SocketpoolError, match="asked for a line") as caught:
        process(Asks, MEMBERS)
    assert caught.value.exit_code == 7
    assert "override line_to_send" in caught.value.hint


class Talks(VendorClient):
    """A client of one's own that answers with whatever it got."""

    max_file_bytes = 100

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.heard: list[str] = []

    def received_line(self, text: str) -> None:
        self.heard.append(text)

    def received_file(self, path: Path) -> None:
        path.replace(self.folder / "received")

    def line_to_send(self) -> str | None:
        return self.heard.pop() if self.heard else None

    def file_to_send(self) -> Path | None:
        return self.folder / "received"


def test_a_client_of_ones_own_takes_and_gives_lines_and_files(tmp_path: Path) -> None:
    texts = ["x", "", '{"event": "done"}', "\u00e9\n" * (MAX_LINE_BYTES // 3)]

    class Converses(VendorServer):
        def transfer(self) -> None:
            for text in texts:
                self.send_line_block(text)
            assert [self.read_line_block() for _ in texts] == texts[::-1]
            with pytest.raises(NothingSent):
                self.read_line_block()
            self.send_file_block(self.members["a.txt"])
            self.write_file_block(self.members["b.txt"])

    done = process(Converses, MEMBERS | {"b.txt": b"?"}, client=Talks(tmp_path))
    assert done.changed == {"b.txt": b"text"}
    assert done.report == []
    assert (tmp_path / "received").read_bytes() == b"text"


def test_a_file_too_large_for_the_client_is_refused_and_the_vendor_may_go_on(
    tmp_path: Path,
) -> None:
    class Sends(VendorServer):
        def transfer(self) -> None:
            with pytest.raises(FileRefused, match="100 are allowed"):
                self.send_file_block(self.members["a.txt"])
            with pytest.raises(ValueError, match="at most"):
                self.send_line_block("x" * (MAX_LINE_BYTES + 1))
            self.send_file_block(self.members["b.txt"])

    process(Sends, {"a.txt": b"x" * 101, "b.txt": b"x" * 100}, client=Talks(tmp_path))
    assert (tmp_path / "received").stat().st_size == 100


def test_many_lines_don_t_fill_the_client() -> None:
    class Babbles(VendorServer):
        def transfer(self) -> None:
            for number in range(100):
                self.send_line_block(f"{number} " + "x" * 1000)

    report = process(Babbles, MEMBERS).report
    assert [len(line) for line in report] == [500] * 50


def test_threads_of_a_vendor_may_talk_at_the_same_time() -> None:
    class Shouts(VendorServer):
        def transfer(self) -> None:
            def shout() -> None:
                for number in range(20):
                    self.send_line_block("x" * 5000)
                    self.progress(number, 20)
                    self.send_file_block(self.members["a.txt"])

            threads = [threading.Thread(target=shout) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.members["a.txt"].write_text("done")

    assert process(Shouts, MEMBERS).changed == {"a.txt": b"done"}


@pytest.mark.parametrize("kind", ["upload", "download"])
def test_an_upload_or_download_carries_its_one_file_alone(kind: str, tmp_path: Path) -> None:
    near, far = socket.socketpair()
    (tmp_path / "file").write_text("x")
    with near, far:
        conversation = conversation_with(kind, near, 100)
        with pytest.raises(NotOffered, match=f"the session is one of {kind}"):
            conversation.send_line("x")
        with pytest.raises(NotOffered):
            conversation.read_line()
        against = conversation.send_file if kind == "upload" else conversation.write_file
        with pytest.raises(NotOffered):
            against(tmp_path / "file")
        near.close()
        assert far.recv(1) == b"", "nothing that the client could misunderstand"
