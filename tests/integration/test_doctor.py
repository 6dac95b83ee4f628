"""``socketpool doctor`` on real hosts and pools."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

from tests.support.pools import WEB, run_tool

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.pools import PoolMaker


def examine(state: Path, *arguments: object) -> tuple[int, list[dict[str, Any]]]:
    done = run_tool("socketpool", "doctor", *arguments, "--json", "--state-dir", state)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def problems(findings: list[dict[str, Any]]) -> list[str]:
    return [f"{f['check']}: {f['what']}" for f in findings if f["level"] == "problem"]


def test_a_host_before_the_first_start_is_looked_over_and_left_alone(
    new_pool: PoolMaker,
) -> None:
    folder = new_pool.folder()
    config = new_pool.write(folder, {"web": WEB}, ports=new_pool.ports(), listen="127.0.0.1:1")
    code, findings = examine(folder / "s", config)
    assert (code, problems(findings)) == (0, [])
    assert {f["check"] for f in findings} >= {"catalogue", "ports", "disk", "clock", "files"}
    assert not (folder / "s").exists()


def test_a_running_pool_is_looked_over_by_its_own_settings(new_pool: PoolMaker) -> None:
    pool = new_pool.start({"web": WEB})
    code, findings = examine(pool.state)
    assert (code, problems(findings)) == (0, [])
    said = {f["what"] for f in findings}
    assert any(f"nobody else listens on {pool.ports}" in what for what in said)
    assert any("is running" in what for what in said)
    assert sum("descriptors" in f["check"] and "has" in f["what"] for f in findings) == 2

    (pool.state / "token").chmod(0o644)
    with socket.create_server(("127.0.0.1", pool.ports.last)):
        code, findings = examine(pool.state)
        assert code == 1
        held = next(f for f in findings if f"port {pool.ports.last} is held" in f["what"])
        assert f"pid {os.getpid()}" in held["what"]
    found = problems(findings)
    assert any("files: " in what and "token" in what for what in found)
    (pool.folder / "services" / "web" / "service.yml").write_text("command: no\n")
    pool.supervisorctl("stop", "pool-server")
    _, findings = examine(pool.state)
    assert any("service.yml" in what for what in problems(findings))
    assert any("the pool server is STOPPED" in what for what in problems(findings))
