"""Bytes received over time, where a person would have watched nload: counters sampled while a pass is measured."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from time import perf_counter
from typing import Any

import psutil

from larder.bench.sampler import Sampler
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


class ReceivedSeries(Sampler):
    """Samples a counter of bytes, and gives the rates between samples."""

    def __init__(self, read: Callable[[], int], interval_seconds: float = SAMPLE_INTERVAL_SECONDS) -> None:
        super().__init__(interval_seconds)
        self._read = read
        self._samples: list[tuple[float, int]] = []

    def _sample(self) -> None:
        try:
            self._samples.append((perf_counter(), self._read()))
        except ServiceError:  # the next one counts what this one would have; who reads the data reports the fault
            return
        if len(self._samples) > MOST_SAMPLES:
            self._samples = self._samples[::2]
            self._interval *= 2

    def as_record(self) -> dict[str, Any]:
        """`t_s`: when samples were taken, in seconds since the first; `bytes_per_s`: the rate from each to the next.

        So there is one time more than rates, and rates times intervals are all the bytes between first and last sample.
        """
        samples = list(self._samples)
        if len(samples) > 2 and samples[-1][0] - samples[-2][0] < self._interval / 2:
            del samples[-2]  # so short a last interval says nothing about a rate
        counts = {round(time - samples[0][0], 3): count for time, count in samples}
        return {
            "t_s": list(counts),
            "bytes_per_s": [round((b - a) / (end - start)) for (start, a), (end, b) in pairwise(counts.items())],
        }
