"""For service authors: run a vendor, or a small pool, inside a test.

`process` runs one vendor on some members in milliseconds.  `InProcessPool` starts the services
themselves and runs whole round trips through them.  `socketpool.testing.doubles` has services that
misbehave on purpose.  Works with any test runner.
"""

from socketpool.testing.doubles import Double, write_double
from socketpool.testing.inprocess import InProcessPool
from socketpool.testing.sessions import Processed, Progress, process

__all__ = ["Double", "InProcessPool", "Processed", "Progress", "process", "write_double"]
