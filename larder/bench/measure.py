"""Measure one pass: the wait for each batch, and the resources used."""

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
    """Measurements from the request for the first batch to the arrival of the last."""

    images: int
    seconds: float
    waits: list[float]
    """Seconds from the request for each batch to its arrival."""
    cpu_seconds: float
    """User and system time of this process and its workers."""
    peak_memory_bytes: int
    peak_memory_kind: str
    received: dict[str, Any]
    """Bytes received over time: see ReceivedSeries.as_record."""


def measure(
    batches: Iterable[Batch], advance: Callable[[int], None], received: Callable[[], int] = interface_bytes
) -> Measurement:
    """Read all batches as fast as they arrive, without a consumer that takes time.

    Args:
        batches: The batches of the pass.
        advance: Called with the number of images of each batch; its time counts in the total but in no wait.
        received: Counter of received bytes, sampled during the pass.
    """
    images, waits = 0, []
    cpu_before = cpu_seconds()
    with PeakMemory() as memory, ReceivedSeries(received) as series:
        iterator = iter(batches)
        start = requested_at = received_at = perf_counter()
        while (batch := next(iterator, None)) is not None:
            received_at = perf_counter()
            waits.append(received_at - requested_at)
            images += count_images(batch)
            advance(len(batch[1]))
            requested_at = perf_counter()
    cpu = cpu_seconds() - cpu_before - memory.own_cpu_seconds - series.own_cpu_seconds
    return Measurement(images, received_at - start, waits, cpu, memory.peak_bytes, memory.kind, series.as_record())


def count_images(batch: Batch) -> int:
    """Return the number of images of a batch. Raise TypeError for another shape or dtype, which isn't comparable."""
    images, labels = batch
    batch_format = tuple(images.shape), str(images.dtype), tuple(labels.shape), str(labels.dtype)
    if batch_format != ((len(labels), 3, 224, 224), "torch.float32", (len(labels),), "torch.int64"):
        raise TypeError(
            f"a loader must yield float32 [B, 3, 224, 224] and int64 [B], and this one yielded {batch_format}"
        )
    return len(labels)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value such that at least `percent` of `values` are not larger (nearest rank)."""
    return sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]
