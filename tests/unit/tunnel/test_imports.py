"""paramiko takes half a second to import, and need not be installed: only SSH asks for it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

MODULES = ["client", "main", "stepclient", "server", "tunnel"]
WITHOUT = (
    "import sys\n"
    "class Missing:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name.partition('.')[0] == 'paramiko':\n"
    "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
    "sys.meta_path.insert(0, Missing())\n"
)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("module", MODULES)
def test_no_command_imports_paramiko_before_it_is_needed(module: str) -> None:
    code = f"import sys, socketpool.cli.{module}; print('paramiko' in sys.modules)"
    assert python(code).stdout == "False\n"


def test_without_paramiko_a_command_through_ssh_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "site.zip").touch()
    code = WITHOUT + "from socketpool.cli.client import main; main()"
    arguments = ("--ssh", "host", "127.0.0.1", "8080", str(tmp_path / "site.zip"), "upload")
    result = python(code, *arguments)
    assert result.returncode == 2
    assert "pip install 'socketpool[ssh]'" in result.stderr


def test_without_paramiko_everything_else_works() -> None:
    result = python(WITHOUT + "from socketpool.cli.main import main; main()", "tunnel", "--help")
    assert result.returncode == 0
    assert "SERVICES" in result.stdout
