"""Commands that take ``@profile`` in the place of ip and port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from socketpool.cli.access import PROFILE_MARK
from socketpool.cli.base import HowtoCommand

if TYPE_CHECKING:
    from collections.abc import Sequence


class ProfiledCommand(HowtoCommand):
    """What the profile says stands for what the command line doesn't."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the profile's address in its place, and the rest of it under the options."""
        at = self._first_positional(args)
        if at is not None and args[at].startswith(PROFILE_MARK):
            from socketpool.config.profiles import find_profile

            profile = find_profile(args[at].removeprefix(PROFILE_MARK))
            args = [*args[:at], profile.pool.host, str(profile.pool.port), *args[at + 1 :]]
            fields = profile.model_dump(exclude={"pool"}, exclude_none=True)
            ctx.default_map = {name: str(value) for name, value in fields.items()}
        return super().parse_args(ctx, args)

    def _first_positional(self, args: Sequence[str]) -> int | None:
        valued = {
            name
            for parameter in self.params
            if isinstance(parameter, click.Option) and not (parameter.is_flag or parameter.count)
            for name in parameter.opts
        }
        skip = False
        for number, argument in enumerate(args):
            if skip:
                skip = False
            elif argument == "--":
                return number + 1 if number + 1 < len(args) else None
            elif argument.startswith("-") and argument != "-":
                skip = argument in valued
            else:
                return number
        return None
