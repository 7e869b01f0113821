"""What this process and its children use: CPU time and memory."""

from __future__ import annotations

import os
from typing import Literal

import psutil

from larder.bench.sampler import Sampler

SAMPLE_INTERVAL_SECONDS = 0.5
GROWTH = 1.01


def cpu_seconds() -> float:
    """User and system time so far of this process and of all its descendants, those that have ended included.

    A child that is waited for moves from the live ones to its parent's account of ended ones, so the difference of
    two calls misses nobody who ends in between. The kernel counts in ticks of 10 ms.
    """
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system + sum(map(_cpu_of, _descendants()))


def _cpu_of(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def _descendants() -> list[psutil.Process]:
    return list(psutil.Process().children(recursive=True))


class PeakMemory(Sampler):
    """Samples the memory of this process and its descendants, and keeps the highest sum.

    The sum is of proportional set sizes, which count a page that n processes share as 1/n in each; resident set
    sizes would count what forked workers share once per worker. Those are taken only where the system has no others.

    A proportional size takes the kernel 5 to 15 ms of CPU per process, which at every sample would slow the loader
    by some percent; a resident size takes 0.03 ms. So each sample looks at the resident sizes, and at the
    proportional ones only when those have grown.
    """

    def __init__(self, interval_seconds: float = SAMPLE_INTERVAL_SECONDS) -> None:
        super().__init__(interval_seconds)
        self.peak_bytes = 0
        self.kind: Literal["pss", "rss"] = "pss"
        self._highest_resident = 0

    def _sample(self) -> None:
        processes = [psutil.Process(), *_descendants()]
        resident = sum(map(_resident_bytes, processes))
        if resident > self._highest_resident * GROWTH:
            self._highest_resident = resident
            self.peak_bytes = max(self.peak_bytes, self._proportional_bytes(processes) or resident)

    def _proportional_bytes(self, processes: list[psutil.Process]) -> int | None:
        """The sum of proportional set sizes; None, from then on, where they can't be had."""
        if self.kind == "pss":
            try:
                return sum(map(_proportional_bytes, processes))
            except (psutil.AccessDenied, AttributeError):  # another system, or a kernel without smaps
                self.kind, self.peak_bytes = "rss", 0
        return None


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _proportional_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0
