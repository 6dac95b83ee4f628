"""``socketpool explain``: what became of a request for a lease."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from socketpool.cli.base import tell
from socketpool.cli.pooloptions import with_pool

if TYPE_CHECKING:
    from socketpool.client.answers import LeaseHistory
    from socketpool.client.api import PoolClient


@click.command("explain")
@click.argument("reference", metavar="LEASE")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@with_pool
def explain(client: PoolClient, reference: str, *, as_json: bool) -> None:
    """Show the history of LEASE: what was asked, waited and granted, where, and how it ended.

    A refusal has a history too, under the reference that was told with it.  The pool server
    remembers the latest 2,000.
    """
    from socketpool.client.answers import LeaseHistory, to_api

    history = client.history(reference)
    if as_json:
        tell(json.dumps(to_api(LeaseHistory, history)))
        return
    for line in _lines(history):
        tell(line)


def _lines(history: LeaseHistory) -> list[str]:
    who = history.client or "the operator's token"
    lines = [
        f"asked    {_clock(history.asked)}  {', '.join(history.services)}, "
        f"for {history.ttl:g} s, by {who}"
    ]
    waited = history.decided - history.asked
    if history.ahead is not None:
        lines.append(f"waited   {waited:.3f} s of {history.wait:g} s, behind {history.ahead}")
    if history.refusal:
        return [*lines, f"refused  {_clock(history.decided)}  {history.refusal}"]
    lines.append(
        f"granted  {_clock(history.decided)}  lease {history.lease}, "
        f"generation {history.generation}, on {', '.join(history.instances)}"
    )
    if history.renewals:
        lines.append(f"renewed  {history.renewals} times")
    if history.ended is None:
        return [*lines, "lives"]
    how = {"release": "released", "expire": "not renewed in time"}.get(history.how, history.how)
    return [*lines, f"ended    {_clock(history.ended)}  {how}"]


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
