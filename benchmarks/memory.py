"""Does the memory of extract and transform grow with the number of images?"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import data
from benchmarks.harness import WORK, BenchmarkReport, run_stage_on_volume

ROUNDS = 3
FEW, MANY = 20_000, 200_000


def measure() -> BenchmarkReport:
    """Measure the peak at 200,000 tiny files and at 20,000, with two workers and with one."""
    report = BenchmarkReport(f"peak memory at {MANY:,} files / at {FEW:,}")
    peaks: dict[tuple[str, str, int], list[int]] = {}
    for number in range(ROUNDS):
        for images in (FEW, MANY):
            archive = data.tiny(images)
            with tempfile.TemporaryDirectory(dir=WORK, prefix="memory-") as folder:
                for workers in ("2", "1"):
                    for name, flags in (("extract", ("--source", str(archive))), ("transform", ())):
                        usage = run_stage_on_volume(
                            name, Path(folder), *flags, "--force", "--workers", workers, watch_memory=True
                        )
                        peaks.setdefault((name, workers, images), []).append(usage.peak_bytes)
                        megabytes = usage.peak_bytes / 1e6
                        print(f"  round {number}: {name} {images:,} files, {workers} workers: {megabytes:.0f} MB")
    for (name, workers, images), many in peaks.items():
        if images == MANY:
            few = peaks[name, workers, FEW]
            ratios = [more / less for more, less in zip(many, few, strict=True)]
            report.add(f"{name}, {workers} worker(s): peak ratio", ratios, "", at_most=1.2)
            report.add(f"{name}, {workers} worker(s): peak", [peak / 1e6 for peak in many], "MB")
    return report
