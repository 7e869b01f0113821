"""What comes over the network, counted by all processes of a loader."""

from __future__ import annotations

import multiprocessing
from typing import NamedTuple


class Network(NamedTuple):
    """What came over the network since a loader was made. Each loader says what it counts."""

    bytes: int
    requests: int | None
    """None where a loader's library doesn't tell."""


class Traffic:
    """Totals that processes share: those that are started with it add, their parent reads."""

    def __init__(self) -> None:
        self._totals = multiprocessing.Array("q", 2)

    def add(self, bytes: int = 0, requests: int = 0) -> None:
        """Count more."""
        with self._totals.get_lock():
            self._totals[0] += bytes
            self._totals[1] += requests

    def read(self) -> Network:
        """What was counted so far."""
        with self._totals.get_lock():
            return Network(self._totals[0], self._totals[1])
