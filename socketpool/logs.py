"""Structured logs: one JSON object per line, on stderr, where supervisord collects it."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from contextlib import nullcontext
from functools import lru_cache
from typing import TextIO

BATCH_SECONDS = 0.05

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_encode = json.JSONEncoder(default=str).encode


class JsonFormatter(logging.Formatter):
    """Time, level, logger, event, then whatever the call gave as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        stamp = _second(int(record.created))
        entry: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        fields = vars(record)
        entry |= {name: fields[name] for name in fields.keys() - _STANDARD}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return _encode(entry)


@lru_cache(maxsize=4)
def _second(since_epoch: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since_epoch))


class BatchHandler(logging.StreamHandler[TextIO]):
    """Writes what was logged within a moment at once, and warnings without delay.

    Each write wakes whoever collects the log; a server that logs thousands of lines a second would
    spend more time on that than on its work.  Killing the process loses that moment's lines.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        self._pending = threading.Event()
        threading.Thread(target=self._write_now_and_then, daemon=True, name="log").start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record; the caller holds the handler's lock."""
        self._lines.append(self.format(record) + self.terminator)
        if record.levelno >= logging.WARNING:
            self.flush()
        else:
            self._pending.set()

    def flush(self) -> None:
        """Write what there is."""
        with self.lock or nullcontext():
            lines, self._lines = self._lines, []
            if lines:
                self.stream.write("".join(lines))
            super().flush()

    def _write_now_and_then(self) -> None:
        while self._pending.wait():
            self._pending.clear()
            time.sleep(BATCH_SECONDS)
            self.flush()


def log_in_batches(level: int = logging.INFO) -> None:
    """As `log_to_stderr`, for a server with much to tell."""
    # What no line of ours shows is not looked for: the caller's place, and by system calls the rest
    logging._srcfile = None  # type: ignore[attr-defined]
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    _log_by(BatchHandler(sys.stderr), level)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send all logs of this process to stderr as JSON lines."""
    _log_by(logging.StreamHandler(sys.stderr), level)


def _log_by(handler: logging.Handler, level: int) -> None:
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
