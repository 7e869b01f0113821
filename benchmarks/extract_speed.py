"""Is extract as fast as Info-ZIP's unzip, hashing and flushing to disk included?"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from benchmarks import data
from benchmarks.harness import (
    WORK,
    BenchmarkReport,
    CannotRunError,
    ResourceUsage,
    interleave,
    run,
    run_stage_on_volume,
)

ROUNDS = 5


def measure(images: int) -> BenchmarkReport:
    """Measure extract against `unzip` and `unzip` with `sync`, with one core and with two, on the same disk."""
    if shutil.which("unzip") is None:
        raise CannotRunError("this benchmark compares with Info-ZIP's unzip, which is missing: apt-get install unzip")
    archive = data.photos(images)
    report = BenchmarkReport(f"extract of {archive.name} against unzip (speed ratios)")
    # Nothing is deleted between runs: ext4 is slow to hand out inodes that have just been freed.
    with tempfile.TemporaryDirectory(dir=WORK, prefix="extract-") as folder:

        def fresh(name: str) -> Path:
            return Path(tempfile.mkdtemp(dir=folder, prefix=name))

        def unzip(_: int) -> ResourceUsage:
            return run(["unzip", "-q", archive, "-d", fresh("unzip")])

        def unzip_and_sync(_: int) -> ResourceUsage:
            place = fresh("unzip")
            return run(["sh", "-c", 'unzip -q "$0" -d "$1" && sync -f "$1"', archive, place])

        def one_core(_: int) -> ResourceUsage:
            return run_stage_on_volume("extract", fresh("one"), "--source", str(archive), "--workers", "1", cpus=1)

        def two_cores(_: int) -> ResourceUsage:
            return run_stage_on_volume("extract", fresh("two"), "--source", str(archive), "--workers", "2", cpus=2)

        contestants = {"unzip": unzip, "unzip+sync": unzip_and_sync, "one core": one_core, "two cores": two_cores}
        rounds = interleave(ROUNDS, contestants)
    two = 1.3 if images == data.FOOD11_IMAGES else 0.9  # little work is done by one process
    for name, goal in (("one core", 0.9), ("two cores", two)):
        for yardstick in ("unzip", "unzip+sync"):
            ratios = [took[yardstick].seconds / took[name].seconds for took in rounds]
            report.add(f"{name} / {yardstick}", ratios, "", at_least=goal)
    report.add(
        "two cores / one core",
        [took["one core"].seconds / took["two cores"].seconds for took in rounds],
        "",
        at_least=1.0,
    )
    report.rounds = [{name: one.seconds for name, one in took.items()} for took in rounds]
    return report
