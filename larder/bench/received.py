"""Record bytes received over time, as nload shows them, by sampling counters during a pass."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from time import perf_counter
from typing import Any

import psutil

from larder.bench.sampler import Sampler
from larder.errors import ServiceError

SAMPLE_INTERVAL_SECONDS = 0.25
MAX_SAMPLES = 1000
"""Above this number, every second sample is dropped and the interval doubles, so that records stay short."""
_VIRTUAL_INTERFACES = ("veth", "docker", "br-", "virbr")
"""Virtual interfaces: their traffic is counted on another interface, too."""


def interface_bytes() -> int:
    """Return the bytes that this machine's or container's network interfaces have received, including loopback.

    These are the kernel's counters: they include headers, retransmissions and other programs' traffic. Loopback counts,
    since a store may run on the same machine.
    """
    counters = psutil.net_io_counters(pernic=True, nowrap=True)
    return sum(counter.bytes_recv for name, counter in counters.items() if not name.startswith(_VIRTUAL_INTERFACES))


class ReceivedSeries(Sampler):
    """Sample a counter of bytes, and compute the rates between samples."""

    def __init__(self, read: Callable[[], int], interval_seconds: float = SAMPLE_INTERVAL_SECONDS) -> None:
        super().__init__(interval_seconds)
        self._read = read
        self._samples: list[tuple[float, int]] = []

    def _sample(self) -> None:
        try:
            self._samples.append((perf_counter(), self._read()))
        except ServiceError:  # the next sample includes these bytes; the reader of the data reports the fault
            return
        if len(self._samples) > MAX_SAMPLES:
            self._samples = self._samples[::2]
            self._interval *= 2

    def as_record(self) -> dict[str, Any]:
        """Return the samples as times (`t_s`) and rates between them (`bytes_per_s`).

        Times are in seconds since the first sample. There is one more time than rates. Rates times intervals add up to
        all bytes between the first and last sample.
        """
        samples = list(self._samples)
        if len(samples) > 2 and samples[-1][0] - samples[-2][0] < self._interval / 2:
            del samples[-2]  # the last interval is too short for a meaningful rate
        counts = {round(time - samples[0][0], 3): count for time, count in samples}
        return {
            "t_s": list(counts),
            "bytes_per_s": [round((b - a) / (end - start)) for (start, a), (end, b) in pairwise(counts.items())],
        }
