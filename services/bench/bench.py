"""The bench stage: open an arm, measure its loader, keep the record."""

from __future__ import annotations

from datetime import UTC, datetime

from larder.bench import provenance, table
from larder.bench.passes import measure_passes, plan
from larder.bench.record import make_record, passes_of
from larder.bench.results import reserve
from larder.bench.wording import in_settings
from larder.next_step import Run
from larder.progress import Reporter, amount
from larder.stage import Outcome
from larder.terminal import Lines, as_json, say
from services.bench.arm import open_arm
from services.bench.settings import BenchSettings
from services.bench.train import train


def bench(settings: BenchSettings, reporter: Reporter) -> Outcome:
    """Do what `settings.task` says."""
    with in_settings(BenchSettings, {}):
        return {"bench": measure_arm, "train": train}[settings.task](settings, reporter)


def measure_arm(settings: BenchSettings, reporter: Reporter) -> Outcome:
    """Measure `settings.arm`; the record goes to `<results>/<arm>-<UTC time>.json` and to stdout."""
    started = datetime.now(UTC)
    origin = provenance.collect(started, settings.revision)
    with reserve(settings.results, f"{settings.arm}-{started:%Y%m%dT%H%M%SZ}") as place:
        with open_arm(settings, reporter) as feed:
            batches = plan(feed.loader.images, settings.split, settings.batch_size, settings.batches)
            passes, warmup = measure_passes(feed, batches, settings.warmup_batches, reporter)
            record = make_record(
                settings.arm, feed.loader, passes, warmup, settings=settings.for_record(), provenance=origin
            )
        place.write(record)
    say(Lines(as_json(record)) if reporter.json else table.render(record))
    rates = (f"{one['imgs/s']:,.0f} imgs/s" + f" {one['pass']}" * bool(record["then"]) for one in passes_of(record))
    return Outcome(
        f"{settings.arm}: {', '.join(rates)} over {amount(record['images'], 'images')} "
        f"({record['cpu_s_per_1000_imgs']:.1f} CPU s per 1,000, {amount(settings.workers, 'workers')}); "
        f"record {place.path.name}",
        f"{Run('bench').having(LARDER_ARM=settings.arm)} once more, to see how far two runs differ on this machine",
        {"imgs/s": record["imgs/s"], "images": record["images"], "record": str(place.path)},
    )
