"""``socketpool doctor``: what is wrong with a pool or its host, and what to do."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import click

from socketpool.cli.base import printable, say
from socketpool.cli.pooloptions import state_dir_option
from socketpool.config.statedir import StateDir
from socketpool.doctor.checks import examine
from socketpool.doctor.facts import Finding, Level
from socketpool.doctor.gather import gather


@click.command("doctor")
@click.argument("pool", metavar="[POOL.YML|FIRST-LAST]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@state_dir_option
def doctor(pool: str | None, *, as_json: bool, state_dir: str | None) -> int:
    """Look the pool of POOL.YML and its host over, before its first start or while it runs.

    Without POOL.YML it is the pool that was last started on the state directory. Changes nothing.
    The exit code is 1 when there is a problem, something that has to be done before the pool can
    work as configured; warnings alone leave it 0.
    """
    findings = examine(gather(pool, StateDir.locate(state_dir)))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            _show(finding)
    counted = Counter(finding.level for finding in findings)
    problems, warnings = counted[Level.PROBLEM], counted[Level.WARNING]
    say(f"{problems or 'no'} problem{_s(problems)}, {warnings or 'no'} warning{_s(warnings)}")
    return 1 if problems else 0


def _show(finding: Finding) -> None:
    click.echo(printable(f"{finding.level:<8} {finding.check:<12} {finding.what}"))
    if finding.hint:
        click.echo(printable(f"{'':<8} {'':<12}   -> {finding.hint}"))


def _s(count: int) -> str:
    return "" if count == 1 else "s"
