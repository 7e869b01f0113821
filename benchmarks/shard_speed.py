"""Does shard keep up with GNU tar on one worker, and beat webdataset's own writer on two?"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import data
from benchmarks.harness import (
    WORK,
    BenchmarkReport,
    ResourceUsage,
    drop_from_cache,
    interleave,
    run,
    run_stage_on_volume,
)

ROUNDS = 5
SHARD_WRITER = """
import sys
from pathlib import Path
from webdataset import ShardWriter

tree, place = Path(sys.argv[1]), sys.argv[2]
for split in sorted(path for path in tree.iterdir() if path.name != "_larder"):
    with ShardWriter(f"{place}/{split.name}-%06d.tar", maxsize=64 << 20, maxcount=10**9, verbose=0) as writer:
        for path in sorted(split.rglob("*.jpg")):
            writer.write({"__key__": path.stem, "jpg": path.read_bytes(), "cls": int(path.parent.name[-2:])})
"""


def measure(images: int) -> BenchmarkReport:
    """Measure shard, with hashing, reading back and flushing, and `tar cf` and ShardWriter in one process."""
    report = BenchmarkReport(f"shard of {images:,} images against GNU tar and webdataset.ShardWriter")
    with tempfile.TemporaryDirectory(dir=WORK, prefix="shard-") as folder:
        volume, places = Path(folder) / "volume", Path(folder) / "places"
        volume.mkdir()
        places.mkdir()
        run_stage_on_volume("extract", volume, "--source", str(data.photos(images)))
        run_stage_on_volume("transform", volume)
        tree = volume / "Food-11"

        def place() -> Path:
            """Return an empty folder; delete what the last program wrote."""
            shutil.rmtree(places)
            places.mkdir()
            return places

        def shard(workers: int) -> ResourceUsage:
            return run_stage_on_volume("shard", place(), "--input", str(tree), "--workers", str(workers), cpus=2)

        def tar(command: str) -> ResourceUsage:
            return run(["sh", "-c", command, "sh", place() / "all.tar", tree], cpus=2)

        def cold(program: Callable[[], ResourceUsage]) -> ResourceUsage:
            drop_from_cache(tree)
            return program()

        plain = 'tar cf "$1" -C "$2" .'
        rounds = interleave(
            ROUNDS,
            {
                "tar from disk": lambda _: cold(lambda: tar(plain)),
                "shard from disk, one worker": lambda _: cold(lambda: shard(1)),
                "tar": lambda _: tar(plain),
                "tar and sync": lambda _: tar(f"{plain} && sync"),
                "shard, one worker": lambda _: shard(1),
                "shard, two workers": lambda _: shard(2),
                "ShardWriter": lambda _: run([sys.executable, "-c", SHARD_WRITER, tree, place()], cpus=2),
            },
        )
    many = images == data.FOOD11_IMAGES  # with few, the start of Python takes as long as all of tar's work
    for name, baseline, goal in (
        ("shard from disk, one worker", "tar from disk", 0.7 if many else None),
        ("shard, one worker", "tar", 0.7 if many else None),
        ("shard, one worker", "tar and sync", None),
        ("shard, two workers", "ShardWriter", 1.5 if many else None),
        ("shard, two workers", "shard, one worker", 1.0),
    ):
        ratios = [usage[baseline].seconds / usage[name].seconds for usage in rounds]
        report.add(f"{name} / {baseline} (speed)", ratios, "", at_least=goal)
    report.rounds = [{name: one.seconds for name, one in usage.items()} for usage in rounds]
    return report
