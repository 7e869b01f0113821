"""How much memory does shard take for a million tiny samples?"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import data
from benchmarks.harness import WORK, BenchmarkReport, run_stage_on_volume

IMAGES = 1_000_000
WORKERS = 2


def measure(images: int = IMAGES) -> BenchmarkReport:
    """Measure the peak of shard and its workers, with shuffled samples."""
    report = BenchmarkReport(f"peak memory of shard at {images:,} tiny samples, {WORKERS} workers")
    with tempfile.TemporaryDirectory(dir=WORK, prefix="shard-memory-") as folder:
        volume = Path(folder)
        run_stage_on_volume("extract", volume, "--source", str(data.tiny(images)))
        run_stage_on_volume("transform", volume)
        usage = run_stage_on_volume("shard", volume, "--workers", str(WORKERS), watch_memory=True)
    report.add("peak", [usage.peak_bytes / 1e6], "MB", at_most=400)
    report.add("rate", [images / usage.seconds], "images/s")
    return report
