"""Run a comparison, print its table, and say what to do next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from larder.bench.advice import name_page
from larder.bench.comparison.aggregate import aggregate
from larder.bench.comparison.compare import compare, outcome_of
from larder.bench.comparison.files import as_table, write_files
from larder.bench.comparison.settings import ComparisonSettings
from larder.bench.comparison_record import Comparison
from larder.bench.record_folder import reserve
from larder.bench.wording import name_settings_in_errors
from larder.next_step import StageRun
from larder.progress import Reporter
from larder.stage import StageOutcome
from larder.terminal import Lines, as_json, print_escaped


def compare_and_print(
    settings: ComparisonSettings, reporter: Reporter, *, to_commands: Callable[[str], str] = str
) -> StageOutcome:
    """Compare arms; write record and tables, and print the table, or with LARDER_LOG=json the record.

    If the settings name records, measure nothing, and put them together as a new record.

    Raises what `compare` and `aggregate` raise.
    """
    if settings.records:
        return _put_together(settings, reporter)
    files = compare(settings, reporter, to_commands=to_commands)
    _print(files.comparison, reporter, left_out=False)  # they were named before the rounds
    again = StageRun("bench", "compare").with_settings(
        LARDER_SHARDS=settings.shards,
        LARDER_ARMS=settings.arms,
        LARDER_LINK_LATENCY=settings.latency,
        LARDER_LINK_BANDWIDTH=settings.bandwidth,
    )
    return StageOutcome(
        Lines(f"{outcome_of(files.comparison)}\nrecord {files.record}, tables {files.markdown}"),
        f"{_page_of(files.comparison)}; {_next_step(settings, again)}",
        {"record": str(settings.results / files.record)},
    )


def _next_step(settings: ComparisonSettings, again: StageRun) -> str:
    if settings.quick:
        return f"{again.with_settings(LARDER_QUICK='false')}, for narrower intervals"
    if len(settings.worker_counts) > 1:
        return f"{StageRun('report')}, which makes a page of it"
    return f"{again.with_settings(LARDER_SWEEP='1,2,4')}, to see how many workers each arm needs"


def _put_together(settings: ComparisonSettings, reporter: Reporter) -> StageOutcome:
    """Write the rounds of several records as one."""
    now = datetime.now(UTC)
    with name_settings_in_errors(type(settings), {}):
        comparison = aggregate(settings.record_paths)
        with reserve(settings.results, f"compare-{now:%Y%m%dT%H%M%SZ}-{len(comparison.runs_utc)}-runs") as reserved:
            files = write_files(reserved, comparison)
    _print(comparison, reporter, left_out=True)
    return StageOutcome(
        Lines(f"{comparison.summary.answer}\nrecord {files.record}, tables {files.markdown}"),
        f"{_page_of(comparison)}; {StageRun('report')}, which makes a page of it",
        {"record": str(settings.results / files.record)},
    )


def _page_of(comparison: Comparison) -> str:
    """Return which page shows how to train with the fastest arm."""
    return name_page([arm.arm for arm in comparison.summary.arms])


def _print(comparison: Comparison, reporter: Reporter, *, left_out: bool) -> None:
    record = comparison.model_dump(mode="json", by_alias=True)
    table = as_table(comparison, left_out=left_out).map(reporter.rewrite)
    print_escaped(Lines(as_json(record)) if reporter.json else table)
