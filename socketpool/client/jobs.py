"""Which services work on which files: the words of ``socketpool_client``.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from socketpool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path


class Job(NamedTuple):
    """One round trip: a file, and the services that work on it in order."""

    path: Path
    services: tuple[str, ...]


def split_words(
    first: Path,
    words: Sequence[str],
    services: Collection[str],
    find: Callable[[str], Path | None],
) -> list[Job]:
    """The jobs: each service works on the file named last before it, at first on ``first``.

    A word that is a service's name is the service; ``find`` gives the file of any other, or None
    when there is none.  Raises :class:`UsageError`.
    """
    jobs = [Job(first, ())]
    for word in words:
        if word in services:
            path, so_far = jobs[-1]
            jobs[-1] = Job(path, (*so_far, word))
            continue
        found = find(word)
        if found is None:
            raise UsageError(
                f"{word!r} is neither a service of this pool nor a file: no service is named so, "
                "and no such file exists",
                hint="known services: " + ", ".join(sorted(services)),
            )
        jobs.append(Job(found, ()))
    _check(jobs)
    return jobs


def _check(jobs: list[Job]) -> None:
    seen: dict[Path, Path] = {}
    for path, services in jobs:
        if not services:
            raise UsageError(
                f"no service is named for {str(path)!r}",
                hint="name the services after each file: "
                "a.zip upload vendor download b.zip upload vendor download",
            )
        if path.resolve() in seen:
            raise UsageError(
                f"{str(path)!r} is named twice", hint="name each file once, all its services after"
            )
        seen[path.resolve()] = path
