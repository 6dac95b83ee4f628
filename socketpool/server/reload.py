"""Applies changed configuration to a running pool: all of it, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from socketpool.config.settings import Settings, load_settings
from socketpool.config.values import Address
from socketpool.errors import ConfigError
from socketpool.supervision.files import spec_texts, write_settings
from socketpool.system.hostfacts import ephemeral_ports, resolve

if TYPE_CHECKING:
    from socketpool.config.statedir import StateDir


class ReloadedSettings(NamedTuple):
    """New settings, and the services that are not as they were."""

    settings: Settings
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


def read_again(old: Settings, state: StateDir) -> ReloadedSettings:
    """Read the pool's file and its catalogue again, and write what processes are told.

    Raises ConfigError, and then nothing has changed: neither file nor process.
    """
    if old.source is None:
        raise ConfigError("this pool was not started from a file, so there is none to read again")
    new = load_settings(old.source.target, listen=old.source.listen, ephemeral=ephemeral_ports())
    new = _with_addresses_of(old, new)
    specs = spec_texts(new, state)
    changed = [
        name
        for name, text in specs.items()
        if name in old.services and text != _spec_on_disk(state, name)
    ]
    write_settings(state, new, specs)
    return ReloadedSettings(
        new,
        added=tuple(sorted(new.services.keys() - old.services.keys())),
        changed=tuple(sorted(changed)),
        removed=tuple(sorted(old.services.keys() - new.services.keys())),
    )


def _with_addresses_of(old: Settings, new: Settings) -> Settings:
    """Refuse what only a restart can change; what names stand for stays as it was resolved."""
    listen = Address(host=resolve(new.listen.host), port=new.listen.port or old.listen.port)
    told = {
        "pool.ports": (old.ports, new.ports),
        "pool.listen": (old.listen, listen),
        "pool.services_host": (old.services_host, resolve(new.services_host)),
    }
    for key, (before, after) in told.items():
        if str(before) != str(after):
            raise ConfigError(
                f"{key} can't change while the pool runs: it is {before}, the file says {after}",
                hint="restart the pool to change it",
            )
    return new.model_copy(update={"listen": old.listen, "services_host": old.services_host})


def _spec_on_disk(state: StateDir, service: str) -> str:
    try:
        return (state.services / f"{service}.json").read_text(encoding="utf-8")
    except OSError:
        return ""
