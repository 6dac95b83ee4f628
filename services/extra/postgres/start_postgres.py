"""Makes an empty cluster in the instance's workspace and becomes its postgres.

Nothing in it is worth keeping, so it writes nothing through to the disk.
"""

import ctypes
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

DEBIAN = Path("/usr/lib/postgresql")
ACCOUNTS = ("postgres", "nobody")
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000

THROWAWAY = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "unix_socket_directories": "",
    # In the workspace, for where no namespace can be made: /dev/shm would keep a killed one's.
    "dynamic_shared_memory_type": "mmap",
}


def main(host: str, port: str, workspace: str) -> NoReturn:
    """Doesn't return."""
    programs = find_programs()
    enter_namespaces()
    data = Path(workspace) / "data"
    made = subprocess.run(
        [
            *(programs / "initdb", "--pgdata", data, "--username", "postgres"),
            *("--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        sys.exit(f"initdb failed: {made.stderr.strip()}")
    settings = THROWAWAY | {"listen_addresses": host, "port": port}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    os.execv(programs / "postgres", ["postgres", "-D", str(data), *options])  # noqa: S606


def find_programs() -> Path:
    """The folder of postgres and initdb; Debian keeps them off the PATH, a folder a version."""
    on_path = shutil.which("postgres")
    versions = sorted(DEBIAN.glob("*/bin/postgres"), key=_version)
    for postgres in (*([Path(on_path).resolve()] if on_path else []), *reversed(versions)):
        if (postgres.parent / "initdb").exists():
            return postgres.parent
    sys.exit("can't run 'postgres': it is not installed; on Debian: apt-get install postgresql")


def enter_namespaces() -> None:
    """Shared memory that ends with this process, and for root another user's number.

    The cluster is made by a postgres that leaves its shared memory behind when it is killed, and
    postgres refuses root; the workspace lies where no other account gets to, so that it can't
    really become another.  See user_namespaces(7).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    try:
        seen_as = uid or next(a.pw_uid for a in pwd.getpwall() if a.pw_name in ACCOUNTS)
        _check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC))
        for name, text in (
            ("uid_map", f"{seen_as} {uid} 1"),
            ("setgroups", "deny"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            Path("/proc/self", name).write_text(text, encoding="ascii")
        _check(libc.mount(b"none", b"/dev/shm", b"tmpfs", 0, b"mode=0700"))
    except (OSError, StopIteration) as error:
        if uid == 0:
            sys.exit(
                "postgres refuses to run as root, and no user namespace can be made for it "
                f"({error}); run the pool as an account of its own"
            )


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _version(postgres: Path) -> float:
    match = re.match(r"[0-9]+(\.[0-9]+)?", postgres.parent.parent.name)
    return float(match[0]) if match else 0.0


if __name__ == "__main__":
    main(*sys.argv[1:4])
