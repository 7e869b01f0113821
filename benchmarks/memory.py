"""Does the memory of extract and transform grow with the number of images?"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

from benchmarks import data
from benchmarks.harness import WORK, BenchmarkReport, run_stage_on_volume

ROUNDS = 3
MANY = 200_000


def measure(images: int = MANY) -> BenchmarkReport:
    """Measure the peak at many tiny files and at a tenth of them, with two workers and with one.

    With more than the usual 200,000, there is one round.
    """
    sizes, archives = (images // 10, images), {"zip": data.tiny, "tar": data.tiny_tar}
    report = BenchmarkReport(f"peak memory at {images:,} files / at {images // 10:,}")
    peaks: dict[tuple[str, str, int], list[int]] = {}
    for number in range(ROUNDS if images <= MANY else 1):
        for size, workers in itertools.product(sizes, ("2", "1")):
            for kind, make in archives.items():
                with tempfile.TemporaryDirectory(dir=WORK, prefix="memory-") as folder:
                    steps = {f"extract of a {kind}": ["extract", "--source", str(make(size))]}
                    if kind == "tar":
                        steps["transform"] = ["transform"]
                    for what, (name, *flags) in steps.items():
                        usage = run_stage_on_volume(name, Path(folder), *flags, "--workers", workers, watch_memory=True)
                        peaks.setdefault((what, workers, size), []).append(usage.peak_bytes)
                        megabytes = usage.peak_bytes / 1e6
                        print(
                            f"  round {number}: {what}, {size:,} files, {workers} workers: {megabytes:.0f} MB, "
                            f"{usage.seconds:.0f} s",
                            flush=True,
                        )
    for (what, workers, size), many in peaks.items():
        if size == images:
            few = peaks[what, workers, images // 10]
            ratios = [more / less for more, less in zip(many, few, strict=True)]
            report.add(f"{what}, {workers} worker(s): peak ratio", ratios, "", at_most=1.2)
            report.add(f"{what}, {workers} worker(s): peak", [peak / 1e6 for peak in many], "MB")
    return report
