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
    # Nothing is deleted between runs: ext4 avoids recently freed inodes, which slows down the creation of files.
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

        programs = {"unzip": unzip, "unzip+sync": unzip_and_sync, "one core": one_core, "two cores": two_cores}
        rounds = interleave(ROUNDS, programs)
    goal_of_two = 1.3 if images == data.FOOD11_IMAGES else 0.9  # one process does little work alone
    for name, goal in (("one core", 0.9), ("two cores", goal_of_two)):
        for baseline in ("unzip", "unzip+sync"):
            ratios = [usage[baseline].seconds / usage[name].seconds for usage in rounds]
            report.add(f"{name} / {baseline}", ratios, "", at_least=goal)
    report.add(
        "two cores / one core",
        [usage["one core"].seconds / usage["two cores"].seconds for usage in rounds],
        "",
        at_least=1.0,
    )
    report.rounds = [{name: one.seconds for name, one in usage.items()} for usage in rounds]
    return report
