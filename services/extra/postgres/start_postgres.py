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
CLONE_NEWUSER = 0x10000000

THROWAWAY = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "unix_socket_directories": "",
    # In the workspace rather than in /dev/shm, where a killed postgres would leave it behind.
    "dynamic_shared_memory_type": "mmap",
}


def main(host: str, port: str, workspace: str) -> NoReturn:
    """Doesn't return."""
    programs = find_programs()
    if os.geteuid() == 0:
        seem_unprivileged()
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


def seem_unprivileged() -> None:
    """Give this process another user's number, as far as it can see: postgres refuses root.

    Its workspace lies where no other account gets to, so it can't really become another.  See
    user_namespaces(7).
    """
    try:
        account = next(a for a in pwd.getpwall() if a.pw_name in ACCOUNTS)
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        Path("/proc/self/uid_map").write_text(f"{account.pw_uid} 0 1\n", encoding="ascii")
    except (OSError, StopIteration) as error:
        sys.exit(
            "postgres refuses to run as root, and no user namespace can be made for it "
            f"({error}); run the pool as an account of its own"
        )


def _version(postgres: Path) -> float:
    match = re.match(r"[0-9]+(\.[0-9]+)?", postgres.parent.parent.name)
    return float(match[0]) if match else 0.0


if __name__ == "__main__":
    main(*sys.argv[1:4])
