"""Compare all arms that the data allow, and write the record."""

from __future__ import annotations

from larder.bench.comparison.command import compare_and_print
from larder.progress import Reporter
from larder.stage import StageOutcome
from services.bench.settings import BenchSettings
from services.commands import replace_stage_names


def compare_arms(settings: BenchSettings, reporter: Reporter) -> StageOutcome:
    """Compare arms; write `<results>/compare-<UTC time>.json` and `.md`, and the table to stdout."""
    return compare_and_print(settings, reporter, to_commands=replace_stage_names)
