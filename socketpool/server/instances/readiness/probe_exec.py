"""The readiness kind ``exec``: a program exits with 0."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from socketpool.supervision import launch

if TYPE_CHECKING:
    from socketpool.server.instances.readiness import Target


async def probe(target: Target) -> bool:
    """Whether the service's probe program, prepared as its instances are, exits with 0."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", launch.__file__),
        *(str(target.specification), str(target.port), str(os.getpid())),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return await process.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it left running, and itself if late
        if process.returncode is None:
            await asyncio.shield(process.wait())
