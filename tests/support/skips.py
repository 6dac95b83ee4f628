"""A pytest plugin: where CI runs, a test that a missing program would skip fails.

``CI=true`` says so, as all common CI services do.  On a developer's machine the skip stays.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

MISSING = "is not installed"
"""What the reason of such a skip ends with."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip into a failure."""
    report = yield
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    if os.environ.get("CI") == "true" and report.skipped and reason.endswith(MISSING):
        report.outcome = "failed"
        report.longrepr = f"{reason.removeprefix('Skipped: ')}, and CI=true"
    return report
