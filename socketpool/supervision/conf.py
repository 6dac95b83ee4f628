"""supervisord's configuration files as text.

Names and numbers in them were validated; the only free text is paths, which `StateDir.check` has
freed of everything that INI files or supervisord interpret.  What a program is started with is not
in here at all but in a JSON file that `launch` reads, so that no value can break out of its line.
"""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING

from socketpool.supervision import launch

if TYPE_CHECKING:
    from pathlib import Path

    from socketpool.config.statedir import StateDir

POOL_SERVER = "pool-server"

STOP_SECONDS = 2
"""How long an instance may take to end after SIGTERM before it is killed."""


def main_conf(state: StateDir, *, root: bool) -> str:
    """``supervisord.conf``: an unprivileged supervisord on a private socket, and the pool server.

    The pool server is tried again for ever, ever more slowly: whatever keeps it from starting may
    go away.  ``minfds`` is low because every child closes that many descriptors one by one when it
    starts.
    """
    user = "user=root\n" if root else ""
    command = _command(sys.executable, "-P", "-m", "socketpool.server", str(state.root))
    return f"""\
; Written by socketpool_server at each start; changes here are lost.
[unix_http_server]
file={state.supervisor_socket}
chmod=0700

[supervisord]
logfile={state.supervisord_log}
logfile_maxbytes=5MB
logfile_backups=2
pidfile={state.supervisord_pid}
childlogdir={state.logs}
directory={state.root}
identifier=socketpool
nodaemon=true
silent=true
umask=077
minfds=256
minprocs=64
{user}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{state.supervisor_socket}
prompt=socketpool

[program:{POOL_SERVER}]
command={command}
priority=1
autostart=true
autorestart=true
startsecs=1
startretries=1000000
stopwaitsecs=10
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={state.logs / POOL_SERVER}.log
stdout_logfile_maxbytes=5MB
stdout_logfile_backups=2

[include]
files=conf.d/*.conf
"""


def block_conf(state: StateDir, block: str, service: str, ports: range) -> str:
    """A block of instances: one program whose process numbers *are* the ports.

    A block can't grow once supervisord knows it; another one is added instead.
    """
    command = _command(
        sys.executable, "-I", "-S", launch.__file__, str(state.services / f"{service}.json")
    )
    return f"""\
[program:{block}]
command={command} %(process_num)d
process_name=%(process_num)d
numprocs={len(ports)}
numprocs_start={ports.start}
autostart=false
autorestart=true
startsecs=0
startretries=1000000
stopwaitsecs={STOP_SECONDS}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={state.instance_log(service, "%(process_num)d")}
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
"""


def block_name(service: str, number: int) -> str:
    """``upload``, ``upload.2``, ``upload.3``: no service's name has a dot in it."""
    return service if number == 1 else f"{service}.{number}"


def parse_instance(group: str, process: str) -> tuple[str, int, int] | None:
    """Service, block number and port of one of our instances; None for any other program."""
    match = re.fullmatch(
        r"([a-z0-9][a-z0-9-]*)(?:\.([0-9]{1,6}))?:([0-9]{1,5})", f"{group}:{process}"
    )
    return None if match is None else (match[1], int(match[2] or 1), int(match[3]))


def install(path: Path, text: str) -> None:
    """Put a file in place at once and whole."""
    stage(path, text).replace(path)


def stage(path: Path, text: str) -> Path:
    """Write a file beside its place, under a name outside the include's pattern."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    return temporary


def _command(*arguments: str) -> str:
    return shlex.join(arguments).replace("%", "%%")
