"""The readiness kind ``http``: a GET is answered with 2xx or 3xx."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socketpool.server.instances.readiness import Target

STATUS_LINE_BYTES = 4096


async def probe(target: Target) -> bool:
    """Whether the instance answers with success; raises OSError when it can't be reached."""
    host, port = target.host, target.port
    path = target.service.readiness.path or "/"
    reader, writer = await asyncio.open_connection(host, port, limit=STATUS_LINE_BYTES)
    try:
        name = f"[{host}]" if ":" in host else host
        request = f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode("ascii"))
        line = await reader.readline()
    except ValueError:  # a longer line than any HTTP server sends
        return False
    finally:
        writer.close()
    words = line.split()
    return len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1][:1] in {b"2", b"3"}
