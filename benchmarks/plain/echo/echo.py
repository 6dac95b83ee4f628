"""Gives a line back: on standard input and output, or as ``echo.py HOST PORT`` to who connects."""

import socket
import sys
from typing import Protocol


class Reader(Protocol):
    """Whatever lines are read from."""

    def readline(self, limit: int, /) -> bytes: ...


class Writer(Protocol):
    """Whatever bytes are written to."""

    def write(self, data: bytes, /) -> object: ...
    def flush(self) -> None: ...


def echo(reader: Reader, writer: Writer) -> None:
    """One line."""
    writer.write(reader.readline(100))
    writer.flush()


def serve(host: str, port: int) -> None:
    """One connection after the other."""
    with socket.create_server((host, port), backlog=512) as listener:
        while True:
            stream, _ = listener.accept()
            with stream, stream.makefile("rwb") as file:
                echo(file, file)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1], int(sys.argv[2]))
    else:
        echo(sys.stdin.buffer, sys.stdout.buffer)
