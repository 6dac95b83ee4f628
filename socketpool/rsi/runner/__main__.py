"""``python -m socketpool.rsi.runner <service.json> <port>``, as supervisord starts it."""

from __future__ import annotations

import sys

from socketpool.rsi.runner.parent import main

if __name__ == "__main__":
    main(sys.argv[1:])
