"""The READMEs of the roles, from their argument_specs.yml: ``roles.py`` writes them all."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
TITLES = {"main": "Variables", "uninstall": "tasks_from: uninstall", "prune": "tasks_from: prune"}


def readme(role: Path) -> str:
    """The README of one role."""
    meta = yaml.safe_load((role / "meta" / "main.yml").read_text())
    points = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    out = [
        f"# {role.name}",
        "<!-- Written by script/roles-readme; edit meta/argument_specs.yml. -->",
    ]
    out += paragraphs(points["main"].get("description", points["main"]["short_description"]))
    for name, point in points.items():
        out.append(f"## {TITLES[name]}")
        if name != "main":
            out += paragraphs(point.get("description", point["short_description"] + "."))
        if point["options"]:
            out.append("\n".join(table(point["options"])))
            out += [
                f"Of each entry of `{option}`:\n\n" + "\n".join(table(spec["options"]))
                for option, spec in point["options"].items()
                if "options" in spec
            ]
    platforms = ", ".join(
        f"{p['name']} ({', '.join(p['versions'])})" for p in meta["galaxy_info"]["platforms"]
    )
    out += [
        "## Runs on",
        f"{platforms}; ansible-core {meta['galaxy_info']['min_ansible_version']} to 2.19.",
    ]
    return "\n\n".join(out) + "\n"


def paragraphs(text: str | list[str]) -> list[str]:
    """Descriptions in Markdown, folded."""
    return [
        textwrap.fill(markdown(each), 100) for each in ([text] if isinstance(text, str) else text)
    ]


def table(options: dict[str, dict[str, Any]]) -> list[str]:
    """A table of variables."""
    rows = ["| variable | type | default | |", "|---|---|---|---|"]
    for name, spec in options.items():
        kind = f"{spec['type']} of {spec['elements']}" if "elements" in spec else spec["type"]
        default = "required" if spec.get("required") else f"`{shown(spec.get('default'))}`"
        rows.append(f"| `{name}` | {kind} | {default} | {markdown(spec['description'])} |")
    return rows


def shown(value: Any) -> str:
    """A default as YAML writes it on one line."""
    return (
        str(yaml.safe_dump(value, default_flow_style=True, width=1000))
        .removesuffix("\n...\n")
        .strip()
    )


def markdown(text: str) -> str:
    """Ansible's C(...) in Markdown."""
    return re.sub(r"C\(([^)]+)\)", r"`\1`", " ".join(text.split()))


def main() -> None:
    """Write all of them."""
    for role in sorted(ROLES.iterdir()):
        (role / "README.md").write_text(readme(role), encoding="utf-8")


if __name__ == "__main__":
    main()
