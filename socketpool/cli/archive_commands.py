"""The commands about archives: ``plan``, ``archive implode`` and ``archive merge``.

They need no server.  Names of members are shown escaped, because an archive's author chose them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from socketpool.archive.manifest import Manifest
from socketpool.archive.names import show
from socketpool.cli.base import make_console
from socketpool.cli.hook import load_hook

if TYPE_CHECKING:
    from socketpool.archive.plan import Hook, Plan
    from socketpool.archive.report import MergeReport

MANIFEST_SUFFIX = ".manifest.jsonl"
_MOST_ROWS = 40

_EXISTING = click.Path(exists=True, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_policy_option = click.option(
    "--policy",
    "policy_file",
    type=_FILE,
    help="Rules about what may leave (default: .socketpool.yml beside FILE, else those shipped).",
)
_hook_option = click.option(
    "--hook", type=_FILE, help="A Python file whose is_implodable(member) keeps more at home."
)


@click.command()
@click.argument("file", type=_EXISTING)
@_policy_option
@_hook_option
@click.option("--json", "as_json", is_flag=True, help="Print the whole plan as JSON.")
def plan(file: Path, policy_file: Path | None, hook: Path | None, *, as_json: bool) -> None:
    """Show what of FILE would leave and what stays, and which rule says so.

    FILE is a zip or a directory.  Nothing is sent and no server is needed.
    """
    show_plan(file, policy_file, load_hook(hook), as_json=as_json)


def show_plan(
    file: Path, policy_file: Path | None, hook: Hook | None, *, as_json: bool = False
) -> None:
    """What the command does; a client's ``--dry-run`` is the same."""
    from socketpool.archive.plan import make_plan
    from socketpool.archive.policy import find_policy
    from socketpool.archive.sources import open_source

    with open_source(file) as source:
        policy = find_policy(file, policy_file)
        made = make_plan(source, policy, hook)
        if as_json:
            _print_plan_json(made, file, source.signature(), policy.source)
        else:
            _print_plan(made, source.signature(), policy.source)


@click.group()
def archive() -> None:
    """Take apart and put together archives by hand."""


@archive.command()
@click.argument("file", type=_EXISTING)
@click.option("-o", "--output", required=True, type=_FILE, help="Where to write what may leave.")
@_policy_option
@_hook_option
@click.option(
    "--manifest",
    type=_FILE,
    help=f"Where to write the manifest (OUTPUT{MANIFEST_SUFFIX}).",
)
@click.option("--allow-empty", is_flag=True, help="Write an archive also when no member may leave.")
def implode(
    file: Path,
    output: Path,
    *,
    policy_file: Path | None,
    hook: Path | None,
    manifest: Path | None,
    allow_empty: bool,
) -> None:
    """Write the members of FILE that may leave, and a manifest for the merge."""
    from socketpool.archive.plan import check_not_empty, make_plan
    from socketpool.archive.policy import find_policy
    from socketpool.archive.sources import open_source, write_imploded
    from socketpool.errors import UsageError

    if output.exists() and output.samefile(file):
        raise UsageError("the output would replace the archive itself", hint="name another file")
    with open_source(file) as source:
        made = make_plan(source, find_policy(file, policy_file), load_hook(hook))
        if not allow_empty:
            check_not_empty(made, file.name)
        imploded = source.implode(made, verify=True)
        write_imploded(imploded, output)
        imploded.manifest.write(manifest or _beside(output))
        click.echo(
            f"{len(made.sent):,} members ({made.sent_bytes:,} bytes) leave in {imploded.size:,}"
            f" bytes; {made.kept_members:,} stay."
        )


@archive.command()
@click.argument("original", type=_EXISTING)
@click.argument("returned", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=_FILE, help="Write the result there, not over ORIGINAL.")
@_policy_option
@click.option(
    "--manifest",
    "manifest_file",
    type=_FILE,
    help=f"What implode wrote (default: RETURNED{MANIFEST_SUFFIX}, else what may leave now).",
)
@click.option("--backup", default="", metavar="SUFFIX", help="Keep the old file under this suffix.")
@click.option("--allow-signed", is_flag=True, help="Change an archive although it is signed.")
def merge(
    original: Path,
    returned: Path,
    *,
    output: Path | None,
    policy_file: Path | None,
    manifest_file: Path | None,
    backup: str,
    allow_signed: bool,
) -> None:
    """Put the changed members of RETURNED into ORIGINAL; everything else stays byte for byte."""
    from socketpool.archive.policy import find_policy
    from socketpool.archive.sources import merge_into

    if manifest_file is None and _beside(returned).exists():
        manifest_file = _beside(returned)
    manifest = (
        _manifest_of(original, policy_file)
        if manifest_file is None
        else Manifest.read(manifest_file)
    )
    report = merge_into(
        original,
        returned,
        manifest,
        output=output,
        backup=backup,
        limits=find_policy(original, policy_file).limits,
        allow_signed=allow_signed,
    )
    _print_report(report)


@archive.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--finish/--roll-back", "finish", default=None, help="Which way to go.")
def recover(folder: Path, *, finish: bool | None) -> None:
    """Finish or take back a merge into FOLDER that was interrupted."""
    from socketpool.archive.directory import recover_directory
    from socketpool.errors import UsageError

    if finish is None:
        raise UsageError(
            "say which way to go",
            hint="--finish puts the other new files in place, --roll-back takes the old ones back",
        )
    files = recover_directory(folder, finish=finish)
    if not files:
        click.echo("nothing was interrupted there")
    elif finish:
        click.echo(f"{files:,} files are new")
    else:
        click.echo(f"{files:,} files are as they were before")


def _manifest_of(original: Path, policy_file: Path | None) -> Manifest:
    """Without a manifest, what the policy would send now is what may come back."""
    from socketpool.archive.plan import make_plan
    from socketpool.archive.policy import find_policy
    from socketpool.archive.sources import open_source

    with open_source(original) as source:
        made = make_plan(source, find_policy(original, policy_file))
        return source.implode(made).manifest


def _beside(path: Path) -> Path:
    return path.with_name(path.name + MANIFEST_SUFFIX)


def _print_plan_json(made: Plan, file: Path, signature: str, policy: str) -> None:
    import json

    from socketpool.archive.receipt import shown

    head = {
        "source": str(file),
        "policy": policy,
        "signed": signature or None,
        "send": {"members": len(made.sent), "bytes": made.sent_bytes, "packed": made.sent_packed},
        "keep": {"members": made.kept_members, "bytes": made.kept_bytes},
        "rules": [each._asdict() for each in made.totals()],
    }
    # Member by member, because a plan may have a hundred thousand of them.
    click.echo(json.dumps(head, indent=2)[:-2] + ',\n  "members": [', nl=False)
    separator = "\n    "
    for each in made:
        line = json.dumps(
            {"name": shown(each.name), "bytes": each.size, "send": each.send, "rule": each.rule}
        )
        click.echo(separator + line, nl=False)
        separator = ",\n    "
    click.echo("\n  ]\n}")


def _print_plan(made: Plan, signature: str, policy: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = make_console()
    staying = Table("member", "because", title="What would stay", box=None, pad_edge=False)
    for row, each in enumerate(each for each in made if not each.send):
        if row == _MOST_ROWS:
            staying.add_row(f"… and {made.kept_members - row:,} more (all of them: --json)", "")
            break
        staying.add_row(escape(show(each.name)), escape(each.rule))
    rules = Table("rule", "", "members", "bytes", title="What the rules say", box=None)
    for total in sorted(made.totals(), key=lambda each: (not each.send, -each.members)):
        verdict = "leaves" if total.send else "stays"
        rules.add_row(escape(total.rule), verdict, f"{total.members:,}", f"{total.bytes:,}")
    leaving = Table("member", "bytes", title="What would leave", box=None, pad_edge=False)
    for row, each in enumerate(each for each in made if each.send):
        if row == _MOST_ROWS:
            leaving.add_row(f"… and {len(made.sent) - row:,} more (all of them: --json)", "")
            break
        leaving.add_row(escape(show(each.name)), f"{each.size:,}")
    console.print(leaving)
    console.print(staying)
    console.print(rules)
    console.print(
        f"{len(made.sent):,} members ({made.sent_bytes:,} bytes) would leave,"
        f" {made.kept_members:,} ({made.kept_bytes:,} bytes) stay. Nothing was sent."
    )
    console.print(escape(f"Decided by {policy}."))
    if signature:
        console.print(
            escape(f"The archive is signed ({signature}): a change needs --allow-signed.")
        )


def _print_report(report: MergeReport) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = make_console()
    if report.changed:
        table = Table("member", "bytes before", "bytes now", title="Changed")
        for change in report.changed[:_MOST_ROWS]:
            table.add_row(escape(show(change.name)), f"{change.size_before:,}", f"{change.size:,}")
        if len(report.changed) > _MOST_ROWS:
            table.add_row(f"… and {len(report.changed) - _MOST_ROWS:,} more", "", "")
        console.print(table)
    where = escape(str(report.path))
    console.print(
        f"{len(report.changed):,} changed, {len(report.unchanged):,} unchanged,"
        f" {report.missing:,} not returned: {where}" + ("" if report.written else " is as it was")
    )
    if report.backup:
        console.print(escape(f"the old file is {report.backup}"))
