"""Does the memory of load grow with the number of objects?"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import data
from benchmarks.harness import WORK, BenchmarkReport, run_stage, run_stage_on_volume
from benchmarks.store import loopback_store

FEW, MANY = 20_000, 200_000


def measure(many: int = MANY) -> BenchmarkReport:
    """Peak memory, rclone's included, at so many tiny objects against 20,000: of a first load and of a second."""
    report = BenchmarkReport(f"peak memory of load at {many:,} objects / at {FEW:,}")
    peaks: dict[tuple[str, int], int] = {}
    for images in (FEW, many):
        with tempfile.TemporaryDirectory(dir=WORK, prefix="load-memory-") as folder:
            volume = Path(folder) / "volume"
            volume.mkdir()
            run_stage_on_volume("extract", volume, "--source", str(data.tiny(images)))
            run_stage_on_volume("transform", volume)
            with loopback_store(Path(folder) / "store") as store:
                settings = {"LARDER_VOLUME_DIR": str(volume)} | store
                for what in ("first load", "second load"):
                    took = run_stage("load", settings, watch_memory=True)
                    peaks[what, images] = took.peak_bytes
                    megabytes = took.peak_bytes / 1e6
                    print(f"  {what} of {images:,} objects: {megabytes:.0f} MB, {took.seconds:.1f} s", flush=True)
    for what in ("first load", "second load"):
        report.add(f"{what}: peak ratio", [peaks[what, many] / peaks[what, FEW]], "", at_most=1.2)
        report.add(f"{what}: peak", [peaks[what, many] / 1e6], "MB")
    return report
