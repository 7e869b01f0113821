"""Wait for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


def wait_until(condition: Callable[[], object], what: str, seconds: float = 180.0) -> None:
    """Wait for a condition. Fail the test if it doesn't become true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"after {seconds:.0f} s: {what}")
        time.sleep(0.02)
