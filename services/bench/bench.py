"""The bench stage: open an arm, measure its loader, and write the record."""

from __future__ import annotations

from datetime import UTC, datetime

from larder.bench import provenance, run_table
from larder.bench.open_arm import open_arm
from larder.bench.passes import measure_passes, plan_batches
from larder.bench.prepare_peer import prepare_peer
from larder.bench.record_folder import reserve
from larder.bench.run_record import make_record, passes_of
from larder.bench.wording import name_settings_in_errors
from larder.next_step import StageRun
from larder.progress import Reporter, format_amount
from larder.stage import StageOutcome
from larder.terminal import Lines, as_json, print_escaped
from services.bench.compare import compare_arms
from services.bench.settings import BenchSettings
from services.bench.train import train


def bench(settings: BenchSettings, reporter: Reporter) -> StageOutcome:
    """Run the task that `settings.task` names."""
    with name_settings_in_errors(BenchSettings, {}):
        tasks = {"bench": measure_arm, "train": train, "compare": compare_arms, "peers": prepare_arm}
        return tasks[settings.task](settings, reporter)


def prepare_arm(settings: BenchSettings, reporter: Reporter) -> StageOutcome:
    """Prepare `settings.arm`, another library's, for a comparison."""
    return prepare_peer(settings.arm, settings, reporter)


def measure_arm(settings: BenchSettings, reporter: Reporter) -> StageOutcome:
    """Measure `settings.arm`, and write the record to `<results>/<arm>-<UTC time>.json` and to stdout."""
    started = datetime.now(UTC)
    origin = provenance.collect(started, settings.revision, settings.s3_endpoint_url)
    with reserve(settings.results, f"{settings.arm}-{started:%Y%m%dT%H%M%SZ}") as record_file:
        reporter.event(
            "opening", f"{settings.arm}: opening the data and importing its libraries"
        )  # which takes seconds
        with open_arm(settings.arm, settings, reporter) as measured:
            batches = plan_batches(measured.loader.images, settings.split, settings.batch_size, settings.batches)
            passes, warmup = measure_passes(measured, batches, settings.warmup_batches, reporter)
            record = make_record(
                settings.arm, measured.loader, passes, warmup, settings=settings.for_record(), provenance=origin
            )
        record_file.write(record)
    print_escaped(Lines(as_json(record)) if reporter.json else run_table.render_table(record))
    rates = (
        f"{figures['imgs/s']:,.0f} imgs/s" + f" {figures['pass']}" * bool(record["then"])
        for figures in passes_of(record)
    )
    return StageOutcome(
        f"{settings.arm}: {', '.join(rates)} over {format_amount(record['images'], 'images')} "
        f"({record['cpu_s_per_1000_imgs']:.1f} CPU s per 1,000, {format_amount(settings.workers, 'workers')}); "
        f"record {record_file.path.name}",
        f"{StageRun('bench').with_settings(LARDER_ARM=settings.arm)} once more, to see how far two runs differ "
        f"on this machine",
        {"imgs/s": record["imgs/s"], "images": record["images"], "record": str(record_file.path)},
    )
