"""``socketpool explain``: what became of a request for a lease."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from socketpool.cli.base import tell
from socketpool.cli.pooloptions import with_pool

if TYPE_CHECKING:
    from socketpool.client.api import PoolClient


@click.command("explain")
@click.argument("reference", metavar="LEASE")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@with_pool
def explain(client: PoolClient, reference: str, *, as_json: bool) -> None:
    """Tell the story of LEASE: what was asked, waited and granted, where, and how it ended.

    A refusal has a story too, under the reference that was told with it.  The pool server
    remembers the latest 2,000.
    """
    story = client.story(reference)
    if as_json:
        tell(json.dumps(story))
        return
    for line in _lines(story):
        tell(line)


def _lines(story: dict[str, Any]) -> list[str]:
    who = story["client"] or "the operator's token"
    lines = [
        f"asked    {_clock(story['asked'])}  {', '.join(story['services'])}, "
        f"for {story['ttl']:g} s, by {who}"
    ]
    waited = story["decided"] - story["asked"]
    if story["ahead"] is not None:
        lines.append(f"waited   {waited:.3f} s of {story['wait']:g} s, behind {story['ahead']}")
    if story["refusal"]:
        return [*lines, f"refused  {_clock(story['decided'])}  {story['refusal']}"]
    lines.append(
        f"granted  {_clock(story['decided'])}  lease {story['lease']}, "
        f"generation {story['generation']}, on {', '.join(story['instances'])}"
    )
    if story["renewals"]:
        lines.append(f"renewed  {story['renewals']} times")
    if story["ended"] is None:
        return [*lines, "lives"]
    how = {"release": "released", "expire": "not renewed in time"}.get(story["how"], story["how"])
    return [*lines, f"ended    {_clock(story['ended'])}  {how}"]


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
