"""Does the memory of load grow with the number of objects?"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import data
from benchmarks.harness import WORK, BenchmarkReport, run_stage, run_stage_on_volume
from benchmarks.store import loopback_store

FEW, MANY = 20_000, 200_000


def measure(many: int = MANY) -> BenchmarkReport:
    """Measure the peak, with rclone's memory, at many tiny objects and at 20,000: first and second load."""
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
                    usage = run_stage("load", settings, watch_memory=True)
                    peaks[what, images] = usage.peak_bytes
                    megabytes = usage.peak_bytes / 1e6
                    print(f"  {what} of {images:,} objects: {megabytes:.0f} MB, {usage.seconds:.1f} s", flush=True)
    for what in ("first load", "second load"):
        report.add(f"{what}: peak ratio", [peaks[what, many] / peaks[what, FEW]], "", at_most=1.2)
        report.add(f"{what}: peak", [peaks[what, many] / 1e6], "MB")
    return report
