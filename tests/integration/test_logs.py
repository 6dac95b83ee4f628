"""Logs of instances have a limit, however much a program says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.pools import WEB
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.pools import PoolMaker

MEGABYTE = 1024 * 1024
CHATTER = """
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
for number in range(60_000):
    print(f"{number:>6} {'chatter ' * 8}")
print("that was all", flush=True)
ThreadingHTTPServer((sys.argv[2], int(sys.argv[1])), SimpleHTTPRequestHandler).serve_forever()
"""


def test_a_program_that_says_too_much_fills_two_files(new_pool: PoolMaker) -> None:
    command = ["{python}", "-c", CHATTER, "{port}", "{host}"]
    pool = new_pool.start({"chatter": WEB | {"command": command, "warm": 1, "max": 1}})
    logs = pool.state / "logs"
    eventually(
        lambda: any("that was all" in path.read_text() for path in logs.glob("chatter-*.log")),
        "the last line",
    )
    sizes = [path.stat().st_size for path in logs.glob("chatter-*")]
    assert len(sizes) == 2
    assert max(sizes) < 1.1 * MEGABYTE
