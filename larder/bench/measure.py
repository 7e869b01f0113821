"""One measured pass: how long each batch was waited for, and what the pass cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from larder.bench.received import ReceivedSeries, interface_bytes
from larder.bench.usage import PeakMemory, cpu_seconds

if TYPE_CHECKING:
    from larder.loaders.loader import Batch

PERCENTILES = (50, 90, 99)


class Measurement(NamedTuple):
    """What was seen between asking for the first batch and having the last."""

    images: int
    seconds: float
    waits: list[float]
    """Seconds from asking for each batch to having it."""
    cpu_seconds: float
    """User and system time of this process and its workers."""
    peak_memory_bytes: int
    peak_memory_kind: str
    received: dict[str, Any]
    """Bytes received over time: see ReceivedSeries.as_record."""


def measure(
    batches: Iterable[Batch], advance: Callable[[int], None], received: Callable[[], int] = interface_bytes
) -> Measurement:
    """Read a pass to its end, as fast as it comes: a consumer that takes no time of its own.

    `advance` is told the images of each batch; its time counts in the whole but in no wait. `received` is a counter of
    bytes, which is sampled.
    """
    images, waits = 0, []
    cpu_before = cpu_seconds()
    with PeakMemory() as memory, ReceivedSeries(received) as series:
        iterator = iter(batches)
        start = asked = had = perf_counter()
        while (batch := next(iterator, None)) is not None:
            had = perf_counter()
            waits.append(had - asked)
            images += _count(batch)
            advance(len(batch[1]))
            asked = perf_counter()
    cpu = cpu_seconds() - cpu_before - memory.own_cpu_seconds - series.own_cpu_seconds
    return Measurement(images, had - start, waits, cpu, memory.peak_bytes, memory.kind, series.as_record())


def _count(batch: Batch) -> int:
    """The images of a batch. Raises TypeError on one of another form, which can't be compared."""
    images, labels = batch
    form = tuple(images.shape), str(images.dtype), tuple(labels.shape), str(labels.dtype)
    if form != ((len(labels), 3, 224, 224), "torch.float32", (len(labels),), "torch.int64"):
        raise TypeError(f"a loader must give float32 [B, 3, 224, 224] and int64 [B], and this one gave {form}")
    return len(labels)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values don't exceed (nearest rank); `values` isn't empty."""
    return sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]
