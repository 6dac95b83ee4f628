"""Structured logs: one JSON object per line, on stderr, where supervisord collects it."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import deque
from functools import lru_cache
from typing import NamedTuple, TextIO

BATCH_SECONDS = 0.02

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_encode = json.JSONEncoder(default=str).encode


class JsonFormatter(logging.Formatter):
    """Time, level, logger, event, then whatever the call gave as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        known = vars(record)
        fields: dict[str, object] = {name: known[name] for name in known.keys() - _STANDARD}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        level = record.levelname.lower()
        return _line(record.created, level, record.name, record.getMessage(), fields)


def _line(
    since_epoch: float, level: str, logger: str, event: str, fields: dict[str, object]
) -> str:
    entry = {"time": _stamp(since_epoch), "level": level, "logger": logger, "event": event}
    return _encode(entry | fields)


def _stamp(since_epoch: float) -> str:
    return f"{_second(int(since_epoch))}.{int(since_epoch % 1 * 1000):03d}Z"


@lru_cache(maxsize=4)
def _second(since_epoch: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since_epoch))


class BatchHandler(logging.StreamHandler[TextIO]):
    """Writes log entries in batches, every `BATCH_SECONDS`; warnings are written immediately.

    Each write wakes the process that collects the log.  A server that logs thousands of lines a
    second would spend more time on that than on its work.  When the process is killed, the entries
    that were not yet written are lost.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._entries: deque[str | _Event] = deque()  # formatted lines, and events to be formatted
        self._writing = threading.Lock()
        self._pending = threading.Event()
        threading.Thread(target=self._write_now_and_then, daemon=True, name="log").start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record; a warning or error flushes the queue."""
        self._entries.append(self.format(record))
        if record.levelno >= logging.WARNING:
            self.flush()
        else:
            self._pending.set()

    def add(self, event: _Event) -> None:
        """Queue an event; the writing thread formats it.  Never blocks."""
        self._entries.append(event)
        if not self._pending.is_set():
            self._pending.set()

    def flush(self) -> None:
        """Write all queued entries.  Takes its own lock alone: `emit` holds the handler's."""
        with self._writing:
            entries = [self._entries.popleft() for _ in range(len(self._entries))]
            if entries:
                lines = [entry if isinstance(entry, str) else entry.line() for entry in entries]
                self.stream.write("\n".join([*lines, ""]))
            self.stream.flush()

    def _write_now_and_then(self) -> None:
        while self._pending.wait():
            self._pending.clear()
            time.sleep(BATCH_SECONDS)
            self.flush()


def log_event(logger: logging.Logger, event: str, fields: dict[str, object]) -> None:
    """Log an event at level INFO; cheaper than ``logger.info(event, extra=fields)``.

    When logs are written in batches, no record is made, and the writing thread formats the line.
    """
    if _batches is None:
        logger.info(event, extra=fields)
    elif logger.isEnabledFor(logging.INFO):
        _batches.add(_Event(time.time(), logger.name, event, fields))


class _Event(NamedTuple):
    time: float
    logger: str
    event: str
    fields: dict[str, object]

    def line(self) -> str:
        return _line(self.time, "info", self.logger, self.event, self.fields)


_batches: BatchHandler | None = None


def log_in_batches(level: int = logging.INFO) -> None:
    """As `log_to_stderr`, but in batches, for a server that logs thousands of lines a second."""
    # Our lines show neither the caller nor the thread or process: logging need not find them out.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    global _batches  # noqa: PLW0603 - as the handlers of logging are
    _batches = BatchHandler(sys.stderr)
    _log_by(_batches, level)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send all logs of this process to stderr as JSON lines."""
    _log_by(logging.StreamHandler(sys.stderr), level)


def _log_by(handler: logging.Handler, level: int) -> None:
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
