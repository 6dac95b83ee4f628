"""Every kind of readiness that a service may name is there."""

from __future__ import annotations

import inspect
import pkgutil
from typing import get_args

import pytest

from socketpool.config.models import Readiness
from socketpool.server.instances import readiness

KINDS = get_args(Readiness.model_fields["kind"].annotation)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_a_probe_or_needs_none(kind: str) -> None:
    probe = readiness.probe_of(kind)
    assert (probe is None) == (kind in readiness.WITHOUT_PROBE)
    assert probe is None or inspect.iscoroutinefunction(probe)


def test_every_probe_belongs_to_a_kind() -> None:
    modules = {module.name for module in pkgutil.iter_modules(readiness.__path__)}
    kinds = {f"probe_{kind.replace('-', '_')}" for kind in KINDS}
    assert modules <= kinds
