"""The fast path for the two requests that come by the thousand: take a lease, and give it back.

They are routes of the application like all others, declared and described there, and whatever is
not plain about a request is left to it.  A plain one is answered here, straight from the parsed
request to the lease manager: the layers between would take longer than the work.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from socketpool.errors import SocketpoolError
from socketpool.server.api.auth import shown_token
from socketpool.server.api.problems import PROBLEM, rendered
from socketpool.server.api.schema import LeaseRequest
from socketpool.server.api.views import lease_facts, services_host
from socketpool.server.leases.terms import LeaseTerms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    from socketpool.core.records import Lease
    from socketpool.server.poolmanager import PoolManager

LEASES = b"/v1/leases"
ONE_LEASE = b"/v1/leases/"
JSON = b"application/json"


class HotRequest(NamedTuple):
    """A request that arrived whole; ``server`` is the address at which it did."""

    method: bytes
    path: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    server: tuple[str, int | None] | None


class FastPathReply:
    """The answer to a request that the fast path has taken; replaces uvicorn's own cycle.

    uvicorn reads ``response_complete``, clears ``keep_alive`` when the server stops, and when the
    connection is lost it sets ``disconnected`` and then ``message_event``; ``on_gone`` is told.
    """

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self.response_complete = False
        self.keep_alive = True
        self.disconnected = False
        self.on_gone: Callable[[], None] | None = None

    @property
    def message_event(self) -> FastPathReply:
        """What is set when something happened to the connection."""
        return self

    def set(self) -> None:
        """Something happened to the connection."""
        if self.disconnected and self.on_gone is not None:
            self.on_gone()

    def answer(
        self,
        status: int,
        body: bytes = b"",
        kind: bytes = b"",
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Send it, once; ``kind`` is the content type."""
        if self.disconnected:
            return
        protocol = self._protocol
        lines = [STATUS_LINE[status]]
        for name, value in (*protocol.server_state.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        if kind:
            lines.append(b"content-type: %b\r\ncontent-length: %d\r\n" % (kind, len(body)))
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        lines.append(body)
        protocol.transport.write(b"".join(lines))
        self.response_complete = True
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


class LeaseFastPath:
    """Answers what it can of the requests about leases."""

    def __init__(self, manager: PoolManager) -> None:
        self._manager = manager

    @staticmethod
    def may_take(path: bytes) -> bool:
        """Whether a request could be for the fast path; tells without looking any further."""
        return path.startswith(LEASES)

    def take(self, request: HotRequest, reply: FastPathReply) -> bool:
        """Answer the request, now or later; False when the application has to."""
        if request.method == b"POST" and request.path == LEASES:
            handle = self._create
        elif request.method == b"DELETE" and request.path.startswith(ONE_LEASE):
            handle = self._release
        else:
            return False
        client = self._manager.client_of(shown_token(request.headers))
        return client is not None and handle(request, client, reply)

    def _create(self, request: HotRequest, client: str, reply: FastPathReply) -> bool:
        try:
            asked = LeaseRequest.model_validate_json(request.body)
        except ValidationError:
            return False
        ttl = asked.ttl if asked.ttl is not None else self._manager.settings.lease.ttl
        terms = LeaseTerms(tuple(asked.services), ttl, asked.key, asked.wait, client)
        host = services_host(self._manager, request.server)
        leases = self._manager.leases
        waiting = leases.submit(terms, partial(self._answer, host, reply))
        reply.on_gone = partial(leases.abandon, waiting)
        return True

    def _release(self, request: HotRequest, client: str, reply: FastPathReply) -> bool:
        lease = request.path[len(ONE_LEASE) :]
        if not lease.isalnum():
            return False
        try:
            self._manager.leases.release(lease.decode(), client)
        except SocketpoolError as error:
            _refuse(reply, error)
        else:
            reply.answer(204)
        return True

    def _answer(self, host: str, reply: FastPathReply, lease: Lease | SocketpoolError) -> None:
        if isinstance(lease, SocketpoolError):
            _refuse(reply, lease)
            return
        token = self._manager.leases.token(lease)
        try:
            facts = lease_facts(self._manager, lease, host)  # a `GrantedLease`'s, but unchecked
        except SocketpoolError as error:  # it ended in the moment before this
            _refuse(reply, error)
        else:
            reply.answer(201, to_json({**facts, "token": token}), JSON)


def _refuse(reply: FastPathReply, error: SocketpoolError) -> None:
    status, body, headers = rendered(error)
    reply.answer(status, body, PROBLEM, headers)
