"""Runs one step, and connects again when the connection is cut.

A connection that is cut is opened again, with a pause that grows while nothing gets through, for
as long as the lease lives; what was already transferred is not sent again.
"""

from __future__ import annotations

import random
import time
from contextlib import closing
from typing import TYPE_CHECKING

from socketpool.core.backoff import Backoff
from socketpool.errors import PoolUnreachable, ServiceCrashed, TimedOut
from socketpool.protocol.frames import ConnectionCut

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.client.serviceclients import ServiceClient

BACKOFF = Backoff(first=0.05, max_seconds=5.0)
MAX_STALL_SECONDS = 60.0
"""Seconds without any progress after which the step is given up."""

MAX_CRASHES = 3
"""How often the service may crash in one step before the step is given up."""

MAX_CUTS = 10
"""How many sessions in a row may be cut without any progress before the step is given up."""


def run_step(
    service_client: ServiceClient,
    *,
    check_lease: Callable[[], object],
    note: Callable[[str], None],
    must_answer: bool = False,
) -> None:
    """Connect and transfer until it is done.

    ``check_lease`` raises when the lease has ended; ``note`` is told of each new attempt.  Raises
    what the service says; the last cut when nothing has got through for a minute or in
    `MAX_CUTS` sessions; the crash when the service has crashed `MAX_CRASHES` times.  With
    ``must_answer`` a cut is raised at once, as long as no session was ever opened.
    """
    failures, crashes, confirmed, sessions = 0, 0, 0, 0
    last_progress = time.monotonic()
    while True:
        try:
            with closing(service_client):
                service_client.connect()
                service_client.transfer()
            return
        except ServiceCrashed as error:
            check_lease()
            crashes += 1
            if crashes == MAX_CRASHES:
                error.message += f" (tried {MAX_CRASHES} times)"
                raise
            note(f"{error.message}; trying again")
        except (ConnectionCut, PoolUnreachable) as error:
            if service_client.overdue:
                raise TimedOut("the service took longer than it allows itself") from None
            if must_answer and not service_client.sessions:
                raise
            check_lease()
            now = time.monotonic()
            if service_client.confirmed > confirmed:
                confirmed, failures, last_progress = service_client.confirmed, 0, now
                sessions = service_client.sessions
            if (
                now - last_progress > MAX_STALL_SECONDS
                or service_client.sessions - sessions >= MAX_CUTS
            ):
                raise
            note(f"{error.message}; trying again")
        failures += 1
        time.sleep(BACKOFF.delay(failures, random.random()))  # noqa: S311 - spreads, hides nothing
