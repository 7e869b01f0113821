"""Warms a loader up, and measures its passes."""

from __future__ import annotations

import math
from time import perf_counter
from typing import NamedTuple

from larder.bench.feed import Feed
from larder.bench.measure import Measurement, measure
from larder.errors import ConfigurationError, InputError
from larder.loaders.remedies import RENEW
from larder.loaders.traffic import Network
from larder.progress import Reporter, amount

FEWEST_BATCHES = 3
"""An epoch of fewer says nothing about a rate."""
WARMUP_EPOCH, MEASURED_EPOCH = 0, 1


class Warmup(NamedTuple):
    """What was read before anything was measured."""

    batches: int
    seconds: float


class Pass(NamedTuple):
    """What was seen in one pass, and what came over the network in it."""

    measured: Measurement
    network: Network | None


def measure_passes(feed: Feed, batches: int, warmup_batches: int, reporter: Reporter) -> tuple[dict[str, Pass], Warmup]:
    """Warm a feed up and measure `batches` batches of each of its passes, by their names.

    Raises InputError when a whole epoch gives other images than the manifest counts.
    """
    warmup = Warmup(0, 0.0) if len(feed.passes) > 1 else _warm_up(feed, min(warmup_batches, batches), reporter)
    epochs = enumerate(feed.passes, MEASURED_EPOCH)
    return {name: _measure(feed, epoch, name, batches, reporter) for epoch, name in epochs}, warmup


def plan(images: int, split: str, batch_size: int, batches: int) -> int:
    """How many batches are measured of an epoch of `images`; `batches` are asked for, 0 is all.

    Raises ConfigurationError when an epoch is too short for what is asked.
    """
    epoch = math.ceil(images / batch_size)
    has = f"an epoch of {split!r} has {epoch:,} ({amount(images, 'images')} in batches of {batch_size:,})"
    faults = []
    if epoch < FEWEST_BATCHES:
        faults.append(f"batch_size={batch_size}: it takes {FEWEST_BATCHES} batches to measure, and {has}")
    if batches > epoch:
        faults.append(f"batches={batches}: {has}; 0 measures them all")
    if faults:
        raise ConfigurationError.of_faults(faults, next_step="set a smaller number, or measure a larger data set")
    return batches or epoch


def _warm_up(feed: Feed, batches: int, reporter: Reporter) -> Warmup:
    """Start workers, fill caches of names, open connections."""
    start = perf_counter()
    if batches:
        with reporter.task("warming up", batches, "batches") as task:
            for _ in feed.loader.read(WARMUP_EPOCH, batches):
                task.advance()
    return Warmup(batches, perf_counter() - start)


def _measure(feed: Feed, epoch: int, name: str, batches: int, reporter: Reporter) -> Pass:
    loader, before = feed.loader, feed.network()
    images = min(batches * loader.batch_size, loader.images)
    with reporter.task("measuring" if len(feed.passes) == 1 else f"measuring, {name}", images, "images") as task:
        measured = measure(loader.read(epoch, batches), task.advance, feed.received)
    if images == loader.images != measured.images:
        raise InputError(
            f"an epoch of {loader.split!r} gave {measured.images:,} images, and its manifest says {loader.images:,}",
            next_step=RENEW,
        )
    return Pass(measured, _since(before, feed.network()))


def _since(before: Network | None, after: Network | None) -> Network | None:
    """What came over the network between two readings."""
    if before is None or after is None:
        return None
    requests = None if before.requests is None or after.requests is None else after.requests - before.requests
    return Network(after.bytes - before.bytes, requests)
