"""Bytes received over time, where a person would have watched nload: counters sampled while a pass is measured."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from time import perf_counter, thread_time
from typing import Any, Self

import psutil

from larder.errors import ServiceError

SAMPLE_INTERVAL_SECONDS = 0.25
MOST_SAMPLES = 1000
"""When there are more, neighbours are joined and the interval doubles: an epoch of hours has no longer record."""
_COPIES = ("veth", "docker", "br-", "virbr")
"""Interfaces that hand on what another one of this machine has received."""


def interface_bytes() -> int:
    """Bytes that this machine's (or container's) network interfaces have received so far, loopback's among them.

    The kernel's counters, so they hold headers, repeats and what other programs receive; loopback counts, since a store
    may run on the same machine.
    """
    counters = psutil.net_io_counters(pernic=True, nowrap=True)
    return sum(each.bytes_recv for name, each in counters.items() if not name.startswith(_COPIES))


class ReceivedSeries:
    """Samples a counter of bytes from a thread, and gives the rates between samples."""

    def __init__(self, read: Callable[[], int], interval_seconds: float = SAMPLE_INTERVAL_SECONDS) -> None:
        self._read, self._interval = read, interval_seconds
        self._samples: list[tuple[float, int]] = []
        self.own_cpu_seconds = 0.0
        """What the sampling thread took itself."""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="received", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            self._sample()
            ended = self._end.wait(self._interval)
        self._sample()
        if len(self._samples) > 2 and self._samples[-1][0] - self._samples[-2][0] < self._interval / 2:
            del self._samples[-2]  # so short a last interval says nothing about a rate
        self.own_cpu_seconds = thread_time()

    def _sample(self) -> None:
        try:
            self._samples.append((perf_counter(), self._read()))
        except ServiceError:  # the next one counts what this one would have; who reads the data reports the fault
            return
        if len(self._samples) > MOST_SAMPLES:
            self._samples = self._samples[::2]
            self._interval *= 2

    def as_record(self) -> dict[str, Any]:
        """`t_s`: the middle of each interval, in seconds since the first sample; `bytes_per_s`: the rate in it."""
        pairs = [(a, b) for a, b in itertools.pairwise(self._samples) if b[0] > a[0]]
        start = self._samples[0][0] if self._samples else 0.0
        return {
            "t_s": [round((before[0] + after[0]) / 2 - start, 3) for before, after in pairs],
            "bytes_per_s": [round((after[1] - before[1]) / (after[0] - before[0])) for before, after in pairs],
        }
