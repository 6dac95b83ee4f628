"""Remote Services Invocation: what services, and the clients of services, are written with.

The bases of services are imported when they are asked for: a client needs the interfaces alone,
and must not depend on what runs services.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from socketpool.rsi.interfaces import SemaphoreInterface, UploaderInterface, VendorInterface

if TYPE_CHECKING:
    from socketpool.rsi.service import ServiceServer
    from socketpool.rsi.vendor import VendorServer

__all__ = [
    "SemaphoreInterface",
    "ServiceServer",
    "UploaderInterface",
    "VendorInterface",
    "VendorServer",
]

_BASES = {"ServiceServer": "socketpool.rsi.service", "VendorServer": "socketpool.rsi.vendor"}


def __getattr__(name: str) -> object:
    if name not in _BASES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_BASES[name]), name)
