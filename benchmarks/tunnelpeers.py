"""sshtunnel and asyncssh as forwarders, run by an interpreter that has them.

Prints the port it forwards from and the seconds until its imports were done, then stays.
They have an environment of their own, with the paramiko that we have.
"""

import asyncio
import getpass
import sys
import time
from pathlib import Path

HOST = "127.0.0.1"


def by_sshtunnel(folder: Path, port: int, target: int, begun: float) -> None:
    import sshtunnel  # noqa: PLC0415 - only one of them is needed, and timed

    imported = time.time() - begun
    forwarder = sshtunnel.SSHTunnelForwarder(
        (HOST, port),
        ssh_username=getpass.getuser(),
        ssh_pkey=str(folder / "user"),
        allow_agent=False,
        host_pkey_directories=[],
        remote_bind_address=(HOST, target),
        local_bind_address=(HOST, 0),
    )
    forwarder.start()
    print(forwarder.local_bind_port, imported, flush=True)
    sys.stdin.read()


async def by_asyncssh(folder: Path, port: int, target: int, begun: float) -> None:
    import asyncssh  # noqa: PLC0415 - as above

    imported = time.time() - begun
    connection = await asyncssh.connect(
        HOST,
        port,
        config=None,
        username=getpass.getuser(),
        client_keys=[str(folder / "user")],
        known_hosts=None,
    )
    listener = await connection.forward_local_port(HOST, 0, HOST, target)
    print(listener.get_port(), imported, flush=True)
    await connection.wait_closed()


if __name__ == "__main__":
    name, place, *numbers = sys.argv[1:]
    sshd_port, target_port = map(int, numbers[:2])
    arguments = (Path(place), sshd_port, target_port, float(numbers[2]))
    if name == "sshtunnel":
        by_sshtunnel(*arguments)
    else:
        asyncio.run(by_asyncssh(*arguments))
