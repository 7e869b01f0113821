"""Count network traffic across all processes of a loader."""

from __future__ import annotations

import multiprocessing
from typing import NamedTuple


class NetworkTraffic(NamedTuple):
    """Network traffic since a loader was constructed. Each loader documents what it counts."""

    bytes: int
    requests: int | None
    """None if the loader's library doesn't report them."""


class TrafficCounter:
    """Counters in shared memory: worker processes add to them, their parent reads them."""

    def __init__(self) -> None:
        self._totals = multiprocessing.Array("q", 2)

    def add(self, bytes: int = 0, requests: int = 0) -> None:
        """Add to the totals."""
        with self._totals.get_lock():
            self._totals[0] += bytes
            self._totals[1] += requests

    def read(self) -> NetworkTraffic:
        """Return the totals so far."""
        with self._totals.get_lock():
            return NetworkTraffic(self._totals[0], self._totals[1])
