"""Does a finished stage end at once when it is run again?"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import data
from benchmarks.harness import WORK, Report, interleave, stage

ROUNDS = 5


def measure() -> Report:
    """Seconds of a second run on a tree of Food-11's size."""
    report = Report("second run of a finished stage")
    archive = str(data.photos())
    with tempfile.TemporaryDirectory(dir=WORK, prefix="second-") as folder:
        volume = Path(folder)
        stage("extract", volume, "--source", archive)
        stage("transform", volume)
        rounds = interleave(
            ROUNDS,
            {
                "extract": lambda _: stage("extract", volume, "--source", archive),
                "transform": lambda _: stage("transform", volume),
            },
        )
    for name in ("extract", "transform"):
        report.add(name, [took[name].seconds for took in rounds], "s", at_most=2.0)
    return report
