"""Does a finished stage end at once when it is run again?"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import data
from benchmarks.harness import WORK, BenchmarkReport, interleave, run_stage_on_volume

ROUNDS = 5


def measure() -> BenchmarkReport:
    """Measure the second run on a tree of Food-11's size."""
    report = BenchmarkReport("second run of a finished stage")
    archive = str(data.photos())
    with tempfile.TemporaryDirectory(dir=WORK, prefix="second-") as folder:
        volume = Path(folder)
        run_stage_on_volume("extract", volume, "--source", archive)
        run_stage_on_volume("transform", volume)
        rounds = interleave(
            ROUNDS,
            {
                "extract": lambda _: run_stage_on_volume("extract", volume, "--source", archive),
                "transform": lambda _: run_stage_on_volume("transform", volume),
            },
        )
    for name in ("extract", "transform"):
        report.add(name, [usage[name].seconds for usage in rounds], "s", at_most=2.0)
    return report
