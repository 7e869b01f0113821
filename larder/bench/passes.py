"""Warm up a loader, and measure its passes."""

from __future__ import annotations

import math
from time import perf_counter
from typing import NamedTuple

from larder.bench.measure import Measurement, measure
from larder.bench.measured_loader import MeasuredLoader
from larder.errors import ConfigurationError, InputError
from larder.loaders.hints import CREATE_AGAIN
from larder.loaders.traffic import NetworkTraffic
from larder.progress import Reporter, format_amount

MIN_BATCHES = 3
"""Fewer batches give no meaningful rate."""
WARMUP_EPOCH, MEASURED_EPOCH = 0, 1


class Warmup(NamedTuple):
    """Batches read before the measurement."""

    batches: int
    seconds: float


class Pass(NamedTuple):
    """Measurements of one pass, and its network traffic."""

    measured: Measurement
    network: NetworkTraffic | None


def measure_passes(
    measured: MeasuredLoader, batches: int, warmup_batches: int, reporter: Reporter
) -> tuple[dict[str, Pass], Warmup]:
    """Warm up a loader, and measure each of its passes, by name.

    Args:
        measured: The loader to measure.
        batches: Batches per pass.
        warmup_batches: Maximum batches of the warm-up; there is none if the loader has several passes.
        reporter: Receives progress.

    Raises:
        InputError: If a whole epoch yields another number of images than the manifest has.
    """
    warmup = Warmup(0, 0.0) if len(measured.passes) > 1 else _warm_up(measured, min(warmup_batches, batches), reporter)
    epochs = enumerate(measured.passes, MEASURED_EPOCH)
    return {name: _measure(measured, epoch, name, batches, reporter) for epoch, name in epochs}, warmup


def plan_batches(images: int, split: str, batch_size: int, batches: int) -> int:
    """Return the number of batches to measure in an epoch of `images`; `batches` is the requested number, 0 means all.

    Raises:
        ConfigurationError: If an epoch has too few batches.
    """
    epoch = math.ceil(images / batch_size)
    has = f"an epoch of {split!r} has {epoch:,} ({format_amount(images, 'images')} in batches of {batch_size:,})"
    faults = []
    if epoch < MIN_BATCHES:
        faults.append(f"batch_size={batch_size}: it takes {MIN_BATCHES} batches to measure, and {has}")
    if batches > epoch:
        faults.append(f"batches={batches}: {has}; 0 measures them all")
    if faults:
        raise ConfigurationError.of_faults(faults, next_step="set a smaller number, or measure a larger dataset")
    return batches or epoch


def _warm_up(measured: MeasuredLoader, batches: int, reporter: Reporter) -> Warmup:
    """Start workers, fill metadata caches, open connections."""
    start = perf_counter()
    if batches:
        with reporter.task("warming up", batches, "batches") as task:
            for _ in measured.loader.read(WARMUP_EPOCH, batches):
                task.advance()
    return Warmup(batches, perf_counter() - start)


def _measure(measured: MeasuredLoader, epoch: int, name: str, batches: int, reporter: Reporter) -> Pass:
    loader, before = measured.loader, measured.network()
    images = min(batches * loader.batch_size, loader.images)
    with reporter.task("measuring" if len(measured.passes) == 1 else f"measuring, {name}", images, "images") as task:
        measurement = measure(loader.read(epoch, batches), task.advance, measured.received)
    if images == loader.images != measurement.images:
        raise InputError(
            f"an epoch of {loader.split!r} gave {measurement.images:,} images, and its manifest says {loader.images:,}",
            next_step=CREATE_AGAIN,
        )
    return Pass(measurement, traffic_between(before, measured.network()))


def traffic_between(before: NetworkTraffic | None, after: NetworkTraffic | None) -> NetworkTraffic | None:
    """Return the network traffic between two readings."""
    if before is None or after is None:
        return None
    requests = None if before.requests is None or after.requests is None else after.requests - before.requests
    return NetworkTraffic(after.bytes - before.bytes, requests)
