"""A bad configuration is refused with the file, the key and what is allowed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from socketpool.config.settings import Settings, load_settings, shipped_catalogue
from socketpool.config.values import Address
from socketpool.config.yamlfile import MAX_FILE_BYTES
from socketpool.core.ports import PortRange
from socketpool.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

EPHEMERAL = PortRange(32768, 60999)

PLAIN = {"description": "plain", "command": ["true"]}
SDK = {"description": "sdk", "sdk": {"file": "vendor.py", "class": "Vendor"}}
VENDOR = "class Vendor:\n    pass\n"


def settings_of(
    folder: Path,
    pool: str | bytes = "",
    *,
    service: Any = PLAIN,
    name: str = "svc",
    code: str | bytes = VENDOR,
) -> Settings:
    """Load a pool.yml beside a catalogue of one service, as the server would."""
    target = folder / "services" / name
    target.mkdir(parents=True)
    text = service if isinstance(service, str | bytes) else yaml.safe_dump(service)
    (target / "service.yml").write_bytes(text.encode() if isinstance(text, str) else text)
    (target / "vendor.py").write_bytes(code.encode() if isinstance(code, str) else code)
    path = folder / "pool.yml"
    raw = pool.encode() if isinstance(pool, str) else pool
    path.write_bytes(raw if b"catalogue" in raw else raw + b"\ncatalogue: [services]\n")
    return load_settings(str(path), ephemeral=EPHEMERAL)


BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
)

POOLS = {
    "unknown key": ("poool: {}", ["line 1", "poool", "unknown key", "pool, catalogue, services"]),
    "unknown key of pool": (
        "pool:\n  listen: 127.0.0.1:1\n  port: 5",
        ["line 3", "pool.port", "unknown key", "listen, ports, services_host, lease"],
    ),
    "unknown key of lease": ("pool: {lease: {tll: 5s}}", ["pool.lease.tll", "ttl, max"]),
    "unknown key of an override": (
        "services: {svc: {wram: 1}}",
        ["services.svc.wram", "unknown key", "warm, max, readiness, environment, limits"],
    ),
    "unknown limit": ("services: {svc: {limits: {ram: 5}}}", ["limits.ram", "memory", "cpu"]),
    "not a mapping": ("- catalogue", ["keys and values", "list"]),
    "a scalar": ("the catalogue", ["keys and values", "str"]),
    "pool is a list": ("pool: [1]", ["line 1", "pool"]),
    "bad listen": ("pool: {listen: here}", ["pool.listen", "127.0.0.1:8080", "[::1]:8080"]),
    "bad listen port": ("pool: {listen: '127.0.0.1:99999'}", ["pool.listen", "0 to 65535"]),
    "bad services_host": ("pool: {services_host: 'a b'}", ["pool.services_host", "host name"]),
    "bad range": ("pool: {ports: 21000}", ["pool.ports", "first-last", "21000-21499"]),
    "backward range": ("pool: {ports: 3000-2000}", ["pool.ports", "first port is above the last"]),
    "privileged range": ("pool: {ports: 80-90}", ["pool.ports", "1024-65535"]),
    "ephemeral range": (
        "pool: {ports: 32000-33000}",
        ["pool.ports", "32000-33000", "32768-60999", "outgoing connections", "below 32768"],
    ),
    "listen within the range": (
        "pool: {listen: '127.0.0.1:21005'}",
        ["21005", "pool.ports", "21000-21499", "another"],
    ),
    "ttl too long": ("pool: {lease: {ttl: 2h, max: 1h}}", ["pool.lease", "7200", "3600"]),
    "ttl no duration": ("pool: {lease: {ttl: soon}}", ["pool.lease.ttl", "soon", "90s, 5m or 1h"]),
    "ttl zero": ("pool: {lease: {ttl: 0}}", ["pool.lease.ttl", "greater than 0"]),
    "ttl negative": ("pool: {lease: {ttl: -5}}", ["pool.lease.ttl", "greater than 0"]),
    "ttl infinite": ("pool: {lease: {ttl: .inf}}", ["pool.lease.ttl", "2592000"]),
    "ttl not a number": ("pool: {lease: {ttl: .nan}}", ["pool.lease.ttl"]),
    "ttl a truth": ("pool: {lease: {ttl: yes}}", ["pool.lease.ttl", "90s, 5m or 1h"]),
    "ttl a list": ("pool: {lease: {ttl: [5]}}", ["pool.lease.ttl", "90s, 5m or 1h"]),
    "unknown service": ("services: {nope: {warm: 1}}", ["services.nope", "svc"]),
    "bad service name": ("services: {'Bad Name': {}}", ["services", "lower-case letters"]),
    "override warm > max": ("services: {svc: {warm: 9}}", ["services.svc", "warm (9)", "max (8)"]),
    "override max too small": ("services: {svc: {max: 0}}", ["services.svc", "warm (1)"]),
    "override bad placeholder": (
        "services: {svc: {environment: {A: '{prot}'}}}",
        ["services.svc", "{prot}", "{port}"],
    ),
    "warm a float": ("services: {svc: {warm: 1.5}}", ["services.svc.warm", "integer"]),
    "warm a text": ("services: {svc: {warm: '1'}}", ["services.svc.warm", "integer"]),
    "warm a truth": ("services: {svc: {warm: true}}", ["services.svc.warm", "integer"]),
    "warm negative": ("services: {svc: {warm: -1}}", ["services.svc.warm", "0"]),
    "warm enormous": ("services: {svc: {max: 10001}}", ["services.svc.max", "10000"]),
    "more warm than ports": (
        "pool: {ports: 21000-21003}\nservices: {svc: {warm: 8}}",
        ["pool.ports", "4 ports", "8 instances"],
    ),
    "repeated key": ("pool: {}\npool: {}", ["line 2", "'pool'", "twice"]),
    "repeated service": ("services:\n  svc: {}\n  svc: {}", ["line 3", "'svc'", "twice"]),
    "repeated key in a list": ("catalogue: [{a: 1, a: 2}]", ["'a'", "twice"]),
    "a tag that builds objects": (
        "pool: !!python/object/apply:os.system ['touch /tmp/owned']",
        ["line 1", "tag:yaml.org,2002:python/object"],
    ),
    "a tag that names things": ("pool: !!python/name:os.system", ["line 1", "python/name"]),
    "an unknown tag": ("pool: !secret x", ["line 1", "!secret"]),
    "broken YAML": ("pool: {listen: [}", ["line 1", "not valid YAML"]),
    "tab": ("pool:\n\tlisten: x", ["line 2", "not valid YAML"]),
    "two documents": ("pool: {}\n---\npool: {}", ["not valid YAML"]),
    "an alias bomb": (BOMB, ["line", "aliases", "more than"]),
    "an alias bomb as a value": (
        BOMB + "\npool: {lease: {ttl: *a29}}",
        ["aliases", "more than"],
    ),
    "an alias of itself": ("pool: &a [*a]", ["not valid YAML"]),
    "an undefined alias": ("pool: *nothing", ["line 1", "nothing"]),
    "deep nesting": ("pool: " + "[" * 5000 + "]" * 5000, ["not valid YAML"]),
    "a date that is none": ("pool: 2024-13-45", ["not valid YAML"]),
    "a number that is none": ("services: {svc: {warm: 0x_}}", ["not valid YAML"]),
    "a number of 5000 digits": ("services: {svc: {warm: " + "9" * 5000 + "}}", ["pool.yml"]),
    "a list as a key": ("? [a, b]\n: c", ["line 1", "not valid YAML"]),
    "a mapping as a key": ("? {a: b}\n: c", ["line 1", "not valid YAML"]),
    "a number as a key": ("1: 2", ["1"]),
    "not UTF-8": (b"pool: \xff\xfe", ["not UTF-8"]),
    "control characters": ("pool: \x07", ["not valid YAML"]),
    "huge": (b"#" * (MAX_FILE_BYTES + 1), ["larger than", str(MAX_FILE_BYTES)]),
    "catalogue is a text": ("catalogue: services", ["catalogue", "a list"]),
    "catalogue elsewhere": ("catalogue: [nowhere]", ["catalogue", "nowhere", "not a folder"]),
    "catalogue empty": ("catalogue: []", ["no service", "service.yml"]),
    "catalogue twice": ("catalogue: [services, services/../services]", ["'svc'", "twice"]),
}


@pytest.mark.parametrize(("text", "parts"), POOLS.values(), ids=POOLS)
def test_a_bad_pool_file_is_refused(tmp_path: Path, text: str | bytes, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(tmp_path, text)
    shown = f"{caught.value.message} {caught.value.hint}"
    assert caught.value.exit_code == 2
    assert str(tmp_path / "pool.yml") in shown
    assert [part for part in parts if part not in shown] == [], shown
    assert len(shown) < 3000, "a message for people"


def svc(**changes: Any) -> dict[str, Any]:
    return {k: v for k, v in (PLAIN | changes).items() if v is not None}


SERVICES = {
    "no description": (svc(description=None), ["description", "required"]),
    "empty description": (svc(description=""), ["description", "at least 1"]),
    "neither form": (svc(command=None), ["command", "sdk"]),
    "both forms": (svc(sdk=SDK["sdk"]), ["either command", "sdk"]),
    "command a text": (svc(command="sleep 1"), ["line", "command"]),
    "command empty": (svc(command=[]), ["command", "at least 1"]),
    "command of numbers": (svc(command=["a", 1]), ["command.1", "text; put it in quotes"]),
    "unknown placeholder": (
        svc(command=["a", "{prot}"]),
        ["command", "{prot}", "{host}, {port}, {workspace}, {python}, {folder}"],
    ),
    "NUL in a command": ('{description: x, command: ["a\\0"]}', ["command", "NUL"]),
    "NUL in the environment": (
        '{description: x, command: [a], environment: {A: "\\0"}}',
        ["environment", "NUL"],
    ),
    "bad environment name": (svc(environment={"A B": "x"}), ["environment.A B"]),
    "environment of numbers": (
        svc(environment={"A": 5}),
        ["environment.A", "text; put it in quotes"],
    ),
    "environment with a bad placeholder": (
        svc(environment={"A": "{home}"}),
        ["environment", "{home}", "{workspace}"],
    ),
    "warm > max": (svc(warm=3, max=2), ["warm (3)", "max (2)"]),
    "max zero": (svc(warm=0, max=0), ["max", "at least 1"]),
    "client without SDK": (svc(client="upload"), ["client", "SDK"]),
    "unknown client": (SDK | {"client": "other"}, ["client", "upload", "vendor", "download"]),
    "readiness of another kind": (
        svc(readiness={"kind": "psychic"}),
        ["readiness.kind", "'listen'"],
    ),
    "http without a path": (svc(readiness={"kind": "http"}), ["readiness", "path", "/health"]),
    "a path that is none": (
        svc(readiness={"kind": "http", "path": "/a b\r\nX: y"}),
        ["readiness.path", "match"],
    ),
    "a path without http": (svc(readiness={"path": "/x"}), ["readiness", "kind: http"]),
    "exec without a program": (svc(readiness={"kind": "exec"}), ["readiness", "kind: exec"]),
    "exec with a placeholder unknown": (
        svc(readiness={"kind": "exec", "exec": ["ping", "{hots}"]}),
        ["readiness.exec", "{hots}", "{host}"],
    ),
    "an SDK service probed by http": (
        SDK | {"readiness": {"kind": "http", "path": "/"}},
        ["readiness.kind", "SDK"],
    ),
    "readiness timeout": (svc(readiness={"timeout": 0}), ["readiness.timeout", "greater than 0"]),
    "memory no size": (svc(limits={"memory": "lots"}), ["limits.memory", "512M or 2G"]),
    "memory zero": (svc(limits={"memory": 0}), ["limits.memory", "greater than 0"]),
    "memory beyond any machine": (
        svc(limits={"memory": "999999999999G"}),
        ["limits.memory", "less than"],
    ),
    "few open files": (svc(limits={"open_files": 3}), ["limits.open_files", "16"]),
    "no sessions": (svc(limits={"sessions": 0}), ["limits.sessions", "1"]),
    "SDK without class": ({"description": "x", "sdk": {"file": "a.py"}}, ["sdk", "file and class"]),
    "SDK file elsewhere": (
        {"description": "x", "sdk": {"file": "../a.py", "class": "A"}},
        ["sdk.file"],
    ),
    "SDK file absent": (
        {"description": "x", "sdk": {"file": "other.py", "class": "A"}},
        ["other.py", "No such file", "sdk.file"],
    ),
    "SDK class absent": (
        {"description": "x", "sdk": {"file": "vendor.py", "class": "Wendor"}},
        ["vendor.py", "no class Wendor", "Vendor", "sdk.class"],
    ),
    "unknown key": (svc(comand=["x"]), ["line 1", "comand", "unknown key", "description, command"]),
    "name inside": (svc(name="x"), ["name", "unknown key"]),
    "a tag": ("!!python/object/apply:os.getcwd []", ["python/object"]),
    "empty file": ("", ["description", "required"]),
    "not UTF-8": (b"\xff", ["not UTF-8"]),
}


@pytest.mark.parametrize(("service", "parts"), SERVICES.values(), ids=SERVICES)
def test_a_bad_service_file_is_refused(tmp_path: Path, service: Any, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(tmp_path, service=service)
    shown = f"{caught.value.message} {caught.value.hint}"
    assert str(tmp_path / "services" / "svc") in shown
    assert [part for part in parts if part not in shown] == [], shown


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        ("class Vendor:\n    def transfer(self)\n        pass\n", ["line 2"]),
        ("class Other: pass\nclass More: pass\n", ["no class Vendor", "Other, More"]),
        ("", ["no class Vendor", "none"]),
        (b"\xff\xfe", ["not Python source"]),
        (b"class Vendor: pass\0", ["vendor.py"]),
    ],
)
def test_a_vendor_file_that_can_t_work_is_refused(
    tmp_path: Path, code: str | bytes, parts: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"vendor\.py") as caught:
        settings_of(tmp_path, service=SDK, code=code)
    shown = f"{caught.value.message} {caught.value.hint}"
    assert [part for part in parts if part not in shown] == [], shown


def test_the_vendor_file_is_not_run_by_the_check(tmp_path: Path) -> None:
    code = VENDOR + f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    settings_of(tmp_path, service=SDK, code=code)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["Svc", "a_b", "all", "pool-server", "x" * 32])
def test_a_service_s_folder_needs_a_service_s_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="can't name a service") as caught:
        settings_of(tmp_path, name=name)
    assert caught.value.hint == "rename the folder"


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("21000", "first-last"),
        ("21000-20000", "above the last"),
        ("5-10", "1024"),
        ("32700-32800", "outgoing connections"),
        ("no-such-file.yml", "No such file"),
        ("/", "directory"),
        ("9" * 300, "first-last"),
        ("x" * 5000, "too long"),
    ],
)
def test_a_bad_target_on_the_command_line_is_refused(target: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        load_settings(target, ephemeral=EPHEMERAL)


def test_the_command_line_s_port_is_checked_against_the_range() -> None:
    with pytest.raises(ConfigError, match="21499 lies within"):
        load_settings(
            "21000-21499", listen=Address(host="127.0.0.1", port=21499), ephemeral=EPHEMERAL
        )


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(tmp_path, "pool: {listen: x, ports: y}\nservice: {}")
    assert len(caught.value.message.splitlines()) == 3


def test_one_name_in_two_folders_is_refused_with_both(tmp_path: Path) -> None:
    shutil.copytree(shipped_catalogue() / "web", tmp_path / "more" / "svc")
    with pytest.raises(ConfigError, match="defined twice") as caught:
        settings_of(tmp_path, "catalogue: [services, more]")
    assert str(tmp_path / "more" / "svc") in caught.value.message
    assert str(tmp_path / "services" / "svc") in caught.value.message
