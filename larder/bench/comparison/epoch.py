"""Measure one epoch of an arm: waits, resources, rates over time, and which samples came."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import psutil

from larder.bench.comparison.identify import Collector, Identified, Samples, identify, order_entropy
from larder.bench.comparison.page_cache import cache_state
from larder.bench.comparison_parts import UNKNOWN, EpochRecord, PageCache, PixelError, Timeline, Waits
from larder.bench.measure import count_images, percentile
from larder.bench.sampler import Sampler
from larder.bench.usage import PeakMemory, cpu_seconds, descendants
from larder.errors import ServiceError
from larder.loaders.traffic import NetworkTraffic

if TYPE_CHECKING:
    from larder.loaders.loader import Batch

SAMPLE_INTERVAL_SECONDS = 0.25
MEMORY_GROWTH = 1.1
"""By how much the memory must have grown to be read precisely, which takes long."""
MAX_POINTS = 60
"""Points of a timeline in the record."""


class Counters(NamedTuple):
    """How an arm's resources are counted."""

    network: Callable[[], NetworkTraffic | None]
    """Network traffic so far; None without network."""
    received: Callable[[], int]
    """Bytes received so far, sampled for the timeline."""
    helper_cpu: Callable[[], float] = lambda: 0.0
    """CPU seconds so far of helper processes that aren't children, such as rclone."""
    local_files: Sequence[Path] = ()
    """Files whose state in the page cache is determined."""
    forked_from: int | None = None
    """Id of the process that has imported the libraries, which this one shares with it."""
    report: Callable[[int], None] = lambda _: None
    """Is told how many images have come, by the thread that samples."""
    memory_seconds: float = threading.TIMEOUT_MAX
    """Time between samples of the memory. One takes 10 to 20 ms, so that a measured epoch has them at its ends only."""


class EpochResult(NamedTuple):
    """An epoch's record, and the difference of its pixels from the reference."""

    record: EpochRecord
    pixel_error: PixelError | None


def measure_epoch(
    batches: Iterable[Batch], number: int, counters: Counters, reference: Samples | None, *, is_whole: bool
) -> EpochResult:
    """Read all batches as fast as they arrive, and describe what was measured.

    Args:
        batches: The batches of the epoch.
        number: Number of the epoch in this round.
        counters: How resources are counted.
        reference: The samples of the split; None leaves unknown which samples came.
        is_whole: Whether the batches are a whole epoch, which must have each sample once.
    """
    cached = cache_state(counters.local_files)
    collector, waits, images = Collector(), list[float](), 0
    network, disk, own_disk = counters.network(), _machine_disk_bytes(), _own_disk_bytes()
    cpu = cpu_seconds() + counters.helper_cpu()
    memory = PeakMemory(counters.memory_seconds, MEMORY_GROWTH, counters.forked_from)
    with memory, _Rates(counters.received, counters.report) as rates:
        iterator = iter(batches)
        start = requested_at = received_at = perf_counter()
        while (batch := next(iterator, None)) is not None:
            received_at = perf_counter()
            waits.append(received_at - requested_at)
            images += count_images(batch)
            rates.images = images
            collector.add(*batch)
            requested_at = perf_counter()
    sampling = memory.block_cpu_seconds + rates.block_cpu_seconds
    cpu = cpu_seconds() + counters.helper_cpu() - cpu - memory.own_cpu_seconds - rates.own_cpu_seconds
    seconds = max(received_at - start, 1e-9)
    traffic = _difference(network, counters.network())
    found = identify(collector.samples(), reference) if reference is not None else None
    record = EpochRecord(
        epoch=number,
        images=images,
        batches=len(waits),
        seconds=_round(seconds),
        imgs_per_s=_round(images / seconds),
        batches_per_s=_round(len(waits) / seconds),
        avg_batch_s=_round(seconds / max(len(waits), 1)),
        first_batch_s=_round(waits[0]) if waits else 0.0,
        wait_s=_summarize_waits(waits),
        cpu_s=_round(max(cpu, 0.0)),
        instrument_cpu_s=_round(sampling),
        peak_memory_bytes=memory.peak_bytes,
        peak_memory_kind=memory.kind,
        network_bytes=traffic and traffic.bytes,
        network_requests=traffic and traffic.requests,
        disk_bytes=_grown(own_disk, _own_disk_bytes()),
        page_cache=PageCache(
            resident_before=cached.share, method=cached.method, disk_read_bytes=_grown(disk, _machine_disk_bytes())
        ),
        samples_digest=found.digest if found else UNKNOWN,
        exactly_once=_is_complete(found, reference) if is_whole else None,
        order_entropy=order_entropy(found.ids) if found else None,
        timeline=rates.timeline(),
    )
    return EpochResult(record, found.pixel_error if found else None)


class _Rates(Sampler):
    """Sample the counters of received bytes and of images."""

    def __init__(self, received: Callable[[], int], report: Callable[[int], None]) -> None:
        super().__init__(SAMPLE_INTERVAL_SECONDS)
        self.images = 0
        self._received, self._report = received, report
        self._samples: list[tuple[float, int, int]] = []

    def _sample(self) -> None:
        if self.images:
            self._report(self.images)
        try:
            self._samples.append((perf_counter(), self._received(), self.images))
        except ServiceError:  # the next sample includes these bytes
            return
        if len(self._samples) > 2 * MAX_POINTS:
            self._samples = self._samples[::2]
            self._interval *= 2

    def timeline(self) -> Timeline:
        """Return the rates between the samples."""
        samples = self._samples[:: 2 if len(self._samples) > MAX_POINTS else 1]
        if self._samples and samples[-1] != self._samples[-1]:
            samples.append(self._samples[-1])
        if len(samples) > 2 and samples[-1][0] - samples[-2][0] < self._interval / 2:
            del samples[-2]  # the last interval is too short for a meaningful rate
        times = [round(time - samples[0][0], 3) for time, _, _ in samples]
        spans = [max(end - begin, 1e-3) for begin, end in pairwise(times)]
        gains = [(now[1] - before[1], now[2] - before[2]) for before, now in pairwise(samples)]
        return Timeline(
            t_s=times,
            bytes_per_s=[round(gain / span) for (gain, _), span in zip(gains, spans, strict=True)],
            images_per_s=[round(gain / span, 1) for (_, gain), span in zip(gains, spans, strict=True)],
        )


def _summarize_waits(waits: Sequence[float]) -> Waits:
    known = waits or [0.0]
    return Waits(
        p50=_round(percentile(known, 50)),
        p95=_round(percentile(known, 95)),
        p99=_round(percentile(known, 99)),
        max=_round(max(known)),
    )


def _is_complete(found: Identified | None, reference: Samples | None) -> bool | None:
    return None if found is None or reference is None else found.digest == reference.digest()


def _difference(before: NetworkTraffic | None, after: NetworkTraffic | None) -> NetworkTraffic | None:
    if before is None or after is None:
        return None
    requests = None if before.requests is None or after.requests is None else after.requests - before.requests
    return NetworkTraffic(after.bytes - before.bytes, requests)


def _grown(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(after - before, 0)


def _machine_disk_bytes() -> int | None:
    counters = psutil.disk_io_counters()
    return None if counters is None else int(counters.read_bytes)


def _own_disk_bytes() -> int | None:
    """Return the bytes that this process and its descendants have read from disks; None if the system doesn't tell."""
    total = 0
    for process in (psutil.Process(), *descendants()):
        try:
            total += int(process.io_counters().read_bytes)
        except psutil.NoSuchProcess:
            continue
        except (psutil.AccessDenied, AttributeError):
            return None
    return total


def _round(number: float) -> float:
    """Round to five significant digits: more than the precision of any measurement."""
    return float(f"{number:.5g}")
