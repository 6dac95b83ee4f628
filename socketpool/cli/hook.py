"""The user's own ``is_implodable``, from a Python file that the command line names."""

from __future__ import annotations

import runpy
from typing import TYPE_CHECKING, cast

from socketpool.errors import ConfigError
from socketpool.system.signals import catch_what_python_ignores

if TYPE_CHECKING:
    from pathlib import Path

    from socketpool.archive.plan import Hook

NAME = "is_implodable"


def load_hook(path: Path | None) -> Hook | None:
    """The file's ``is_implodable(member) -> bool``; raises :class:`ConfigError`."""
    if path is None:
        return None
    catch_what_python_ignores()  # for programs that the hook starts
    try:
        hook = runpy.run_path(str(path)).get(NAME)
    except Exception as error:
        raise ConfigError(
            f"{path}: {type(error).__name__}: {error}", hint="nothing was sent; correct the file"
        ) from error
    if not callable(hook):
        raise ConfigError(
            f"{path}: no function {NAME} in it",
            hint=f"write: def {NAME}(member): return True for what must stay at home",
        )
    return cast("Hook", hook)
