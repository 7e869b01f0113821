"""A module whose import takes workers ten minutes, and work that ends in the meantime."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import psutil

from larder.engines.local import LocalEngine


def same(number: int) -> int:
    """The task."""
    return number


def until_workers_are_being_started() -> Iterator[int]:
    """Yield three tasks, the last one when the forkserver exists."""
    yield 0
    yield 1
    while not any("forkserver" in word for child in psutil.Process().children() for word in child.cmdline()):
        time.sleep(0.01)
    yield 2


if any("forkserver" in word for word in sys.orig_argv):
    time.sleep(600)

if __name__ == "__main__":
    with LocalEngine(2, 0.01)(same, until_workers_are_being_started()) as results:
        print(list(results))
