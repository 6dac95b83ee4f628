"""What becomes of tests whose programs are missing, with and without CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

def test_called():
    pytest.skip("zip9 is not installed")

@pytest.mark.skipif(True, reason="zip9 is not installed")
def test_marked():
    pass

def test_other():
    pytest.skip("this kernel has no IPv6")
"""


@pytest.mark.parametrize(
    ("ci", "outcome"),
    [("true", "1 failed, 1 skipped, 1 error"), ("", "3 skipped"), ("false", "3 skipped")],
)
def test_in_ci_a_missing_program_is_a_failure(tmp_path: Path, ci: str, outcome: str) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    plugins = ["-p", "tests.support.skips", "-p", "no:cacheprovider"]
    place = ["-c", os.devnull, "--rootdir", str(tmp_path), str(tmp_path / "test_it.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *place],
        env=os.environ | {"CI": ci, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout
    assert ("zip9 is not installed, and CI=true" in done.stdout) is (ci == "true")
