"""How a program is started: what it gets, and what it does not."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from socketpool.supervision import launch
from socketpool.supervision.instancespec import (
    SPEC_VERSION,
    FileSpec,
    InstanceSpec,
    LimitSpec,
    SdkSpec,
    SpecRefused,
    fill,
)
from socketpool.system.wiping import wipe
from tests.support.startstate import FRESH, odd_signals, read_report, reporter

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534

SHOW = """
import json, os, resource, sys, pathlib
limits = ["AS", "CPU", "FSIZE", "NOFILE"]
status = dict(l.split(":", 1) for l in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "files": os.listdir("."),
    "limits": {n: resource.getrlimit(getattr(resource, "RLIMIT_" + n))[0] for n in limits},
    "no_new_privs": status["NoNewPrivs"].strip(),
    "mode": oct(os.stat(".").st_mode & 0o777),
}))
"""


LIMITS: dict[str, Any] = {"sessions": 1, "session_time": 60.0, "archive_size": 1 << 20}


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "show.py").write_text(SHOW)
    (tmp_path / "supervisord.pid").write_text(f"{os.getpid()}\n")
    return {
        "version": SPEC_VERSION,
        "name": "shown",
        "host": "127.0.0.1",
        "folder": str(tmp_path),
        "content": "",
        "supervisord_pid": str(tmp_path / "supervisord.pid"),
        "notify": "",
        "scratch": str(tmp_path / "scratch"),
        "own_workspace": True,
        "environment": {},
        "limits": LIMITS,
        "values": {"host": "127.0.0.1", "python": sys.executable, "folder": str(tmp_path)},
        "argv": ["{python}", "{folder}/show.py"],
    }


def start(
    spec: dict[str, Any], tmp_path: Path, port: str = "2000", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    return subprocess.run(
        [sys.executable, "-I", "-S", launch.__file__, path, port],
        env={"PATH": "/usr/bin:/bin"} | (env or {}),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def shown(spec: dict[str, Any], tmp_path: Path, **options: Any) -> dict[str, Any]:
    done = start(spec, tmp_path, **options)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_placeholders_are_filled_in_arguments_and_environment(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    spec["argv"] += ["{host}:{port}", "{workspace}", "{unknown} {", "{{port}}"]
    spec["environment"] = {"WHERE": "{host} {port} {folder}"}
    seen = shown(spec, tmp_path)
    assert seen["argv"] == [
        "127.0.0.1:2000",
        str(tmp_path / "scratch" / "2000"),
        "{unknown} {",
        "{2000}",
    ]
    assert seen["env"]["WHERE"] == f"127.0.0.1 2000 {tmp_path}"


def test_what_was_filled_in_is_not_filled_in_again() -> None:
    assert fill("{folder}/x", {"folder": "/a/{port}", "port": "1"}) == "/a/{port}/x"
    assert fill("{a}{b}", {"a": "{b}", "b": "{a}"}) == "{b}{a}"


def test_the_environment_is_an_allow_list(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["environment"] = {"MINE": "yes"}
    env = {
        "HOME": "/h",
        "LANG": "C.UTF-8",
        "LC_TIME": "C",
        "TZ": "UTC",
        "SUPERVISOR_PROCESS_NAME": "2000",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "SOCKETPOOL_TOKEN_FILE": "secret",
        "SSH_AUTH_SOCK": "/secret",
        "LD_PRELOAD": "",
        "PYTHONPATH": "/secret",
        "PYTHONSTARTUP": "/secret",
    }
    seen = shown(spec, tmp_path, env=env)["env"]
    kept = {"PATH", "HOME", "LANG", "LC_TIME", "TZ", "SUPERVISOR_PROCESS_NAME", "MINE"}
    assert set(seen) - {"LC_CTYPE"} == kept  # Python itself sets LC_CTYPE in the C locale


def test_limits_of_the_service_hold_for_its_process(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["limits"] = LIMITS | {
        "memory": 1 << 30,
        "cpu": 30.0,
        "file_size": 1 << 20,
        "open_files": 64,
        "sessions": 8,
        "session_time": 5.0,
    }
    assert shown(spec, tmp_path)["limits"] == {
        "AS": 1 << 30,
        "CPU": 30,
        "FSIZE": 1 << 20,
        "NOFILE": 64,
    }


def test_a_limit_above_what_the_host_allows_is_lowered(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    spec["limits"] = LIMITS | {"open_files": 1 << 30, "memory": None}
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert shown(spec, tmp_path)["limits"]["NOFILE"] <= (
        1 << 30 if hard == resource.RLIM_INFINITY else hard
    )


def test_a_plain_program_starts_in_an_empty_private_workspace(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch" / "2000"
    scratch.mkdir(parents=True)
    (scratch / "left.txt").write_text("by the last lease")
    (scratch / "deep").mkdir()
    seen = shown(spec, tmp_path)
    assert (seen["cwd"], seen["files"], seen["mode"]) == (str(scratch), [], "0o700")


def test_an_sdk_service_limits_its_sessions_itself(spec: dict[str, Any], tmp_path: Path) -> None:
    spec |= {"own_workspace": False, "limits": LIMITS | {"open_files": 64}}
    seen = shown(spec, tmp_path)
    assert seen["cwd"] == "/"
    assert seen["limits"]["NOFILE"] != 64
    assert not (tmp_path / "scratch").exists()


def test_privileges_can_t_be_regained(spec: dict[str, Any], tmp_path: Path) -> None:
    assert shown(spec, tmp_path)["no_new_privs"] == "1"


def test_signals_and_descriptors_of_whoever_started_it_do_not_reach_the_program(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    ours, theirs = os.pipe()
    os.set_inheritable(theirs, True)
    spec["argv"] = reporter("{folder}/report")
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    try:
        with odd_signals():
            command: list[str | Path] = [
                sys.executable,
                "-I",
                "-S",
                launch.__file__,
                tmp_path / "spec.json",
                "2000",
            ]
            subprocess.run(command, close_fds=False, check=True, timeout=30)
    finally:
        os.close(ours)
        os.close(theirs)
    assert read_report(tmp_path / "report") == FRESH


def test_a_program_that_is_not_there_is_named(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["argv"] = ["no-such-program"]
    done = start(spec, tmp_path)
    assert done.returncode == 1
    assert "can't run 'no-such-program': No such file" in done.stderr


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    sdk = SdkSpec(file="a.py", cls="A", lease_key="k", workspaces="w", fence="f", alive="l")
    on_file = FileSpec(client="vendor", file="site.zip", result="out.zip", replace=False)
    spec = InstanceSpec(
        name="one",
        host="::1",
        folder=str(tmp_path),
        content="abc",
        environment={"A": "é"},
        limits=LimitSpec(**LIMITS, memory=1 << 30),
        scratch="s",
        supervisord_pid="p",
        notify="",
        own_workspace=True,
        values={"x": "y"},
        argv=["a", "b c"],
        probe=["true"],
    )
    for written in (spec, spec.replaced(sdk=sdk, probe=None), spec.replaced(on_file=on_file)):
        (tmp_path / "spec.json").write_text(written.text())
        read = InstanceSpec.read(tmp_path / "spec.json")
        assert read == written
        assert read.text() == written.text()
    assert spec.replaced(content="changed").text() != spec.text()
    with pytest.raises(SpecRefused, match="one is a plain program"):
        spec.require_sdk()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"version": 2}, "has version 2, and this release of socketpool reads version 1; restart"),
        ({"version": None}, "has version None"),
        ({"name": ...}, "unknown or missing: name"),
        ({"of_a_newer_release": 1}, "unknown or missing: of_a_newer_release"),
        ({"limits": {}}, "unknown or missing: archive_size, session_time, sessions"),
        ({"limits": [1]}, "spec.json"),
    ],
)
@pytest.mark.parametrize("module", ["launch", "runner"])
def test_a_specification_of_another_version_is_refused_with_a_sentence(
    spec: dict[str, Any], tmp_path: Path, changes: dict[str, Any], sentence: str, module: str
) -> None:
    changed = {name: value for name, value in (spec | changes).items() if value is not ...}
    if module == "launch":
        done = start(changed, tmp_path)
    else:
        path = tmp_path / "spec.json"
        path.write_text(json.dumps(changed))
        done = run_runner(path)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert str(tmp_path / "spec.json") in done.stderr


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"'])
def test_what_is_no_specification_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(SpecRefused, match="is not a specification"):
        InstanceSpec.read(tmp_path / "spec.json")


def test_the_runner_refuses_a_plain_program(spec: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    done = run_runner(tmp_path / "spec.json")
    assert (done.returncode, done.stderr) == (1, "shown is a plain program, no SDK service\n")


def run_runner(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "socketpool.rsi.runner", path, "2000"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_no_shell_is_involved(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["argv"] += ["$(touch x); `id` | cat > y & #", "a b", "", "é"]
    seen = shown(spec, tmp_path)
    assert seen["argv"] == ["$(touch x); `id` | cat > y & #", "a b", "", "é"]
    assert seen["files"] == []


def test_the_launcher_imports_little() -> None:
    """It is started for every instance: three small modules of ours, nothing slow, no site."""
    code = (
        f"import sys; sys.path.append({str(Path(launch.__file__).parents[2])!r})\n"
        "import socketpool.supervision.launch; print(*sorted(sys.modules))"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert {name for name in loaded if name.startswith("socketpool.")} == {
        "socketpool.supervision",
        "socketpool.supervision.instancespec",
        "socketpool.supervision.launch",
        "socketpool.system",
        "socketpool.system.ownprocess",
        "socketpool.system.wiping",
    }
    assert not loaded & {"typing", "dataclasses", "pathlib", "site", "subprocess", "logging"}


def test_a_program_is_not_started_for_a_supervisord_that_has_ended(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "supervisord.pid").write_text("4194305\n")
    done = start(spec, tmp_path)
    assert done.returncode == 1
    assert "supervisord has ended" in done.stderr
    assert done.stdout == ""


def probe(spec: dict[str, Any], tmp_path: Path, parent: int) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    return subprocess.run(
        [sys.executable, "-I", "-S", launch.__file__, path, "2000", str(parent)],
        env={"PATH": "/usr/bin:/bin"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_probe_is_prepared_as_its_instance_is_and_takes_nothing_from_it(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch" / "2000"
    scratch.mkdir(parents=True)
    (scratch / "kept").write_text("x")
    spec |= {
        "probe": ["{python}", "{folder}/show.py", "{port}"],
        "limits": LIMITS | {"open_files": 77},
        "environment": {"OURS": "{host}"},
        "notify": "/not/for/probes",
    }
    shown = json.loads(probe(spec, tmp_path, os.getpid()).stdout)
    assert (shown["argv"], shown["files"], shown["cwd"]) == (["2000"], ["kept"], str(scratch))
    assert shown["limits"]["NOFILE"] == 77
    assert shown["env"]["OURS"] == "127.0.0.1"
    assert "NOTIFY_SOCKET" not in shown["env"]
    assert shown["no_new_privs"] == "1"


def test_a_probe_does_not_outlive_who_asked_for_it(spec: dict[str, Any], tmp_path: Path) -> None:
    done = probe(spec | {"probe": ["true"]}, tmp_path, parent=1)
    assert done.returncode != 0
    assert "has ended" in done.stderr


# -- wiping ------------------------------------------------------------------------------------


@pytest.fixture
def tree() -> Iterator[Path]:
    """A folder of an ordinary user, to whom permissions mean something."""
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        os.chown(root, NOBODY, NOBODY)
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    try:
        (root / "wiped").mkdir()
        yield root / "wiped"
    finally:
        os.seteuid(user)
        os.setegid(group)
        wipe(root)


def test_a_tree_is_wiped_and_what_its_links_lead_to_is_not(tree: Path) -> None:
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    (tree / "sub" / "sub").mkdir(parents=True)
    (tree / "sub" / "file").touch()
    (tree / "link").symlink_to(outside)
    (tree / "sub" / "link").symlink_to(outside / "file")
    (tree / "hard").hardlink_to(outside / "file")
    os.mkfifo(tree / "pipe")
    wipe(tree)
    assert not tree.exists()
    assert (outside / "file").read_text() == "precious"
    link = tree.parent / "to-outside"
    link.symlink_to(outside)
    wipe(link)
    assert sorted(p.name for p in tree.parent.iterdir()) == ["outside"]


def test_closed_folders_are_wiped_too(tree: Path) -> None:
    (tree / "read-only" / "shut").mkdir(parents=True)
    (tree / "read-only" / "file").touch()
    (tree / "read-only" / "shut" / "file").touch()
    for folder, mode in (("read-only/shut", 0), ("read-only", 0o500), ("", 0)):
        (tree / folder).chmod(mode)
    wipe(tree)
    assert not tree.exists()


def test_a_tree_deeper_than_any_path_is_wiped(tree: Path) -> None:
    folder = os.open(tree, os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("deeper", dir_fd=folder)
        below = os.open("deeper", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    wipe(tree)
    assert not tree.exists()


def test_wiping_a_file_or_nothing_is_fine(tree: Path) -> None:
    (tree / "file").touch()
    wipe(tree / "file")
    wipe(tree / "file")
    assert list(tree.iterdir()) == []
