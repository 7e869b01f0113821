"""The bench stage: open an arm, warm it up, measure its passes, keep the record."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from larder.errors import ConfigurationError, InputError
from larder.progress import Reporter, amount
from larder.stage import Outcome
from services.bench import arms, provenance, table
from services.bench.feed import Feed, Network
from services.bench.measure import Measurement, measure
from services.bench.record import Warmup, make_record, passes_of
from services.bench.results import reserve
from services.bench.settings import BenchSettings
from services.bench.train import train

FEWEST_BATCHES = 3
"""An epoch of fewer says nothing about a rate."""
WARMUP_EPOCH, MEASURED_EPOCH = 0, 1


def bench(settings: BenchSettings, reporter: Reporter) -> Outcome:
    """Do what `settings.task` says."""
    return {"bench": measure_arm, "train": train}[settings.task](settings, reporter)


def measure_arm(settings: BenchSettings, reporter: Reporter) -> Outcome:
    """Measure `settings.arm`; the record goes to `<results>/<arm>-<UTC time>.json` and to stdout."""
    started = datetime.now(UTC)
    origin = provenance.collect(settings, started)
    with reserve(settings.results, f"{settings.arm}-{started:%Y%m%dT%H%M%SZ}") as place:
        with arms.load(settings.arm)(settings, reporter) as feed:
            record = run(feed, settings, origin, reporter)
        place.write(record)
    print(json.dumps(record, ensure_ascii=False) if reporter.json else table.render(record), flush=True)
    rates = (f"{one['imgs/s']:,.0f} imgs/s" + f" {one['pass']}" * bool(record["then"]) for one in passes_of(record))
    return Outcome(
        f"{settings.arm}: {', '.join(rates)} over {amount(record['images'], 'images')} "
        f"({record['cpu_s_per_1000_imgs']:.1f} CPU s per 1,000, {amount(settings.workers, 'workers')}); "
        f"record {place.path.name}",
        f"make bench ARM={settings.arm} once more, to see how far two runs differ on this machine",
        {"imgs/s": record["imgs/s"], "images": record["images"], "record": str(place.path)},
    )


def run(feed: Feed, settings: BenchSettings, origin: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Warm the feed up, measure its passes, and give the record."""
    batches = plan(feed.images, settings)
    warmup = Warmup(0, 0.0) if len(feed.passes) > 1 else _warm_up(feed, min(settings.warmup_batches, batches), reporter)
    passes = {}
    for epoch, name in enumerate(feed.passes, MEASURED_EPOCH):
        passes[name] = _measure(feed, epoch, name, batches, settings, reporter)
    return make_record(settings, feed, passes, warmup, origin)


def _measure(
    feed: Feed, epoch: int, name: str, batches: int, settings: BenchSettings, reporter: Reporter
) -> tuple[Measurement, Network | None]:
    """Measure one pass. Raises InputError when it gives other images than the manifest counts."""
    before = feed.network()
    images = min(batches * settings.batch_size, feed.images)
    with reporter.task("measuring" if len(feed.passes) == 1 else f"measuring, {name}", images, "images") as task:
        measured = measure(feed.read(epoch, batches), task.advance, feed.received)
    if images == feed.images != measured.images:
        raise InputError(
            f"an epoch of {settings.split!r} gave {measured.images:,} images, and its manifest says {feed.images:,}",
            next_step="make the data anew: what made them, as in `make etl-wds`, with LARDER_FORCE=true",
        )
    return measured, _since(before, feed.network())


def _since(before: Network | None, after: Network | None) -> Network | None:
    """What came over the network between two readings."""
    if before is None or after is None:
        return None
    requests = None if before.requests is None or after.requests is None else after.requests - before.requests
    return Network(after.bytes - before.bytes, requests)


def plan(images: int, settings: BenchSettings) -> int:
    """How many batches are measured of an epoch of `images`.

    Raises ConfigurationError when an epoch is too short for what is asked.
    """
    epoch = math.ceil(images / settings.batch_size)
    size = f"{amount(images, 'images')} in batches of {settings.batch_size:,}"
    has = f"an epoch of {settings.split!r} has {epoch:,} ({size})"
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


def _warm_up(feed: Feed, batches: int, reporter: Reporter) -> Warmup:
    """Start workers, fill caches of names, open connections."""
    start = perf_counter()
    if batches:
        with reporter.task("warming up", batches, "batches") as task:
            for _ in feed.read(WARMUP_EPOCH, batches):
                task.advance()
    return Warmup(batches, perf_counter() - start)
