"""``socketpool service``: for those who write services."""

from __future__ import annotations

import keyword
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import click

from socketpool.config.settings import shipped_catalogue
from socketpool.config.values import check_service_name
from socketpool.errors import ConfigError, UsageError

ADDRESS = "127.0.0.1 8080"


class Template(NamedTuple):
    """What can be made: its templates, and under which names they are written."""

    description: str
    folder: str
    files: dict[str, str]
    use: str


VENDOR = Template(
    "a vendor in Python",
    "vendor",
    {
        "service.yml": "service.yml",
        "vendor.py": "@module@_vendor.py",
        "test.py": "test_@module@.py",
    },
    f"socketpool_client {ADDRESS} site.zip upload @name@ download",
)
PROGRAM = Template(
    "a vendor in any language",
    "program",
    {"service.yml": "service.yml", "program.sh": "@module@.sh", "test.py": "test_@module@.py"},
    VENDOR.use,
)
PLAIN = Template(
    "a plain program that listens on a port",
    "plain",
    {
        "service.yml": "service.yml",
        "server.py": "@module@_server.py",
        "test.py": "test_@module@.py",
    },
    "socketpool lease @name@",
)


@click.group("service")
def service() -> None:
    """Write services of your own."""


@service.command("new")
@click.argument("name")
@click.option(
    "--dir",
    "catalogue",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("services"),
    show_default=True,
    help="The catalogue that gets it.",
)
@click.option("--program", is_flag=True, help="A vendor in any language, as a shell script.")
@click.option("--plain", is_flag=True, help="A plain program that listens on a port.")
def new(name: str, catalogue: Path, *, program: bool, plain: bool) -> None:
    """Make a folder with a working service, a vendor in Python, and its test."""
    if program and plain:
        raise UsageError("a service is either a --program or --plain")
    kind = PROGRAM if program else PLAIN if plain else VENDOR
    made = make_service(name, catalogue, kind)
    click.echo(f"made {catalogue / name}, {kind.description}:")
    for path in made:
        click.echo(f"  {path.name}")
    click.echo(f"test it:   pytest {catalogue / name}")
    click.echo(f"serve it:  socketpool_server {ADDRESS} pool.yml   with this line in pool.yml:")
    click.echo(f"             catalogue: [shipped, {catalogue}]")
    click.echo(f"use it:    {_fill(kind.use, name)}")


def make_service(name: str, catalogue: Path, kind: Template) -> list[Path]:
    """Write a new service; returns its files.  Raises UsageError, ConfigError."""
    try:
        check_service_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if (shipped_catalogue() / name).exists():
        raise UsageError(
            f"{name!r} is a service that comes with socketpool",
            hint="a pool has one service of a name; choose another",
        )
    folder = catalogue / name
    templates = files("socketpool") / "cli" / "templates" / kind.folder
    contents = {
        folder / _fill(target, name): _fill(
            (templates / f"{source}.txt").read_text(encoding="utf-8"), name
        )
        for source, target in kind.files.items()
    }
    try:
        folder.mkdir(parents=True)
        for path, text in contents.items():
            path.write_text(text, encoding="utf-8")
    except FileExistsError:
        raise UsageError(f"{folder} exists already", hint="choose another name") from None
    except OSError as error:
        raise ConfigError(
            f"{folder} can't be made: {error.strerror}", hint="name another place with --dir"
        ) from None
    return list(contents)


def _fill(text: str, name: str) -> str:
    """A template with the service's name in it, also as a module's and as a class's."""
    words = name.strip("-").split("-")
    module = "_".join(words)
    cls = "".join(word.capitalize() for word in words)
    if not module.isidentifier():
        module = f"_{module}"
    if not cls.isidentifier() or keyword.iskeyword(cls):
        cls = f"Vendor{cls}"
    for placeholder, value in {"name": name, "module": module, "class": cls}.items():
        text = text.replace(f"@{placeholder}@", value)
    return text
