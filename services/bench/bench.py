"""The bench stage: open an arm, warm it up, measure one pass, keep the record."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from larder.errors import ConfigurationError
from larder.progress import Reporter
from larder.stage import Outcome
from services.bench import arms, provenance, table
from services.bench.feed import Feed, Network
from services.bench.measure import measure
from services.bench.record import make_record
from services.bench.results import reserve
from services.bench.settings import BenchSettings

FEWEST_BATCHES = 3
"""An epoch of fewer says nothing about a rate."""
WARMUP_EPOCH, MEASURED_EPOCH = 0, 1


def bench(settings: BenchSettings, reporter: Reporter) -> Outcome:
    """Measure `settings.arm`; the record goes to `<results>/<arm>-<UTC time>.json` and to stdout."""
    started = datetime.now(UTC)
    origin = provenance.collect(settings, started)
    with reserve(settings.results, f"{settings.arm}-{started:%Y%m%dT%H%M%SZ}") as place:
        with arms.load(settings.arm)(settings, reporter) as feed:
            record = run(feed, settings, origin, reporter)
        place.write(record)
    print(json.dumps(record, ensure_ascii=False) if reporter.json else table.render(record), flush=True)
    return Outcome(
        f"{settings.arm}: {record['imgs/s']:,.0f} imgs/s over {record['images']:,} images "
        f"({record['cpu_s_per_1000_imgs']:.1f} CPU s per 1,000, {settings.workers} workers); "
        f"record {place.path.name}",
        f"make bench ARM={settings.arm} once more, to see how far two runs differ on this machine",
        {"imgs/s": record["imgs/s"], "images": record["images"], "record": str(place.path)},
    )


def run(feed: Feed, settings: BenchSettings, origin: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Warm the feed up, measure one pass, and give the record."""
    batches = plan(feed.images, settings)
    warmup_seconds = _warm_up(feed, min(settings.warmup_batches, batches), reporter)
    images = min(batches * settings.batch_size, feed.images)
    before = feed.network()
    with reporter.task("measuring", images, "images") as task:
        measured = measure(feed.read(MEASURED_EPOCH, batches), task.advance)
    return make_record(settings, feed, measured, warmup_seconds, origin, _since(before, feed.network()))


def _since(before: Network | None, after: Network | None) -> Network | None:
    """What came over the network between two readings."""
    if before is None or after is None:
        return None
    return Network(after.bytes - before.bytes, after.requests - before.requests)


def plan(images: int, settings: BenchSettings) -> int:
    """How many batches are measured of an epoch of `images`.

    Raises ConfigurationError when an epoch is too short for what is asked.
    """
    epoch = math.ceil(images / settings.batch_size)
    has = f"an epoch of {settings.split!r} has {epoch:,} ({images:,} images in batches of {settings.batch_size:,})"
    faults = []
    if epoch < FEWEST_BATCHES:
        faults.append(
            f"LARDER_BATCH_SIZE={settings.batch_size}: it takes {FEWEST_BATCHES} batches to measure, and {has}"
        )
    if settings.batches > epoch:
        faults.append(f"LARDER_BENCH_BATCHES={settings.batches}: {has}; 0 measures them all")
    if faults:
        raise ConfigurationError.of_faults(faults, next_step="set a smaller number, or measure a larger data set")
    return settings.batches or epoch


def _warm_up(feed: Feed, batches: int, reporter: Reporter) -> float:
    """Start workers, fill caches of names, open connections; returns the seconds it took."""
    start = perf_counter()
    if batches:
        with reporter.task("warming up", batches, "batches") as task:
            for _ in feed.read(WARMUP_EPOCH, batches):
                task.advance()
    return perf_counter() - start
