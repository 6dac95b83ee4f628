"""Write manual pages and completion scripts of all commands: ``manual.py FOLDER``.

A manual page is what ``--help`` says, so there is one text only; the completion is click's own.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

import socketpool

COMPLETIONS = {
    "bash": "bash-completion/completions/{}",
    "zsh": "zsh/site-functions/_{}",
}


def main(folder: str) -> None:
    """Write them below a folder as they belong below ``share``."""
    share = Path(folder)
    for entry in importlib.metadata.entry_points(group="console_scripts"):
        if entry.value.startswith("socketpool."):
            command = load_command(entry)
            write(share / "man" / "man1" / f"{entry.name}.1", manual_page(entry.name, command))
            for shell, place in COMPLETIONS.items():
                completion = get_completion_class(shell)
                assert completion is not None
                variable = f"_{entry.name.upper()}_COMPLETE"
                text = completion(command, {}, entry.name, variable).source()
                write(share / place.format(entry.name), text)


def load_command(entry: importlib.metadata.EntryPoint) -> click.Command:
    """The command behind an entry point, which is of the same module."""
    module = importlib.import_module(entry.module)
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, click.Command) and value.name == entry.name
    )


def manual_page(name: str, command: click.Command) -> str:
    """The command's help as a manual page: headings are headings, what it indents is verbatim."""
    with click.Context(command, info_name=name, max_content_width=80) as context:
        lines = command.get_help(context).splitlines()
    summary = lines[0].partition(" - ")[2]
    out = [f'.TH "{name.upper()}" 1 "" "socketpool {socketpool.__version__}"']
    out += [".SH NAME", f"{escape(name)} \\- {escape(summary)}", ".SH DESCRIPTION"]
    verbatim = False
    for line in lines[1:]:
        if line.startswith(" ") != verbatim and line:
            verbatim = not verbatim
            out.append(".nf" if verbatim else ".fi")
        if line.rstrip(":") in {"Options", "Commands", "Exit codes"} and line.endswith(":"):
            out.append(f".SH {line.rstrip(':').upper()}")
        else:
            out.append(escape(line) if line else ".sp" if verbatim else ".PP")
    return "\n".join(out) + "\n"


def escape(line: str) -> str:
    """Text that roff prints as it is."""
    line = line.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + line if line.startswith((".", "'")) else line


def write(path: Path, text: str) -> None:
    """Write a file and the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
