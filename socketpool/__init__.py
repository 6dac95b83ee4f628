"""socketpool: a pool of supervised services, leased by name to clients."""

__version__ = "0.1.0"
