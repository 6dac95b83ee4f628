"""Remote Services Invocation: what services, and the clients of services, are written with."""

from socketpool.rsi.interfaces import SemaphoreInterface, UploaderInterface, VendorInterface
from socketpool.rsi.service import ServiceServer
from socketpool.rsi.vendor import VendorServer

__all__ = [
    "SemaphoreInterface",
    "ServiceServer",
    "UploaderInterface",
    "VendorInterface",
    "VendorServer",
]
