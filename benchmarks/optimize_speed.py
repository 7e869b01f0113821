"""Does optimize keep up with a bare litdata.optimize of the same images, with the same number of workers?"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import data
from benchmarks.harness import WORK, BenchmarkReport, ResourceUsage, interleave, run, run_stage_on_volume

ROUNDS = 3
WORKERS = 2
BARE = """
import sys
from pathlib import Path
import litdata

def sample(path):
    return {"image": Path(path).read_bytes(), "label": int(Path(path).parent.name[-2:])}

if __name__ == "__main__":
    for split in sorted(path for path in Path(sys.argv[1]).iterdir() if path.name != "_larder"):
        paths = [str(path) for path in sorted(split.rglob("*.jpg"))]
        litdata.optimize(
            sample, paths, f"{sys.argv[2]}/{split.name}", chunk_bytes="64MB", num_workers=int(sys.argv[3]),
            verbose=False,
        )
"""


def measure(images: int) -> BenchmarkReport:
    """Measure optimize, with hashing, reading back and flushing, and litdata.optimize of each split."""
    report = BenchmarkReport(f"optimize of {images:,} images against litdata.optimize, {WORKERS} workers each")
    with tempfile.TemporaryDirectory(dir=WORK, prefix="optimize-") as folder:
        volume, places, script = Path(folder) / "volume", Path(folder) / "places", Path(folder) / "bare.py"
        script.write_text(BARE)  # a file, since workers import it
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

        def optimize(workers: int) -> ResourceUsage:
            return run_stage_on_volume("optimize", place(), "--input", str(tree), "--workers", str(workers), cpus=2)

        def bare(_: int) -> ResourceUsage:
            cache = {"DATA_OPTIMIZER_CACHE_FOLDER": str(Path(folder) / "cache")}
            return run([sys.executable, script, tree, place(), str(WORKERS)], cpus=2, environ=cache)

        rounds = interleave(
            ROUNDS,
            {
                "litdata.optimize": bare,
                "optimize": lambda _: optimize(WORKERS),
                "one worker": lambda _: optimize(1),
            },
        )
    ratios = [usage["litdata.optimize"].seconds / usage["optimize"].seconds for usage in rounds]
    report.add("optimize / litdata.optimize (speed)", ratios, "", at_least=1.0)
    ratios = [usage["one worker"].seconds / usage["optimize"].seconds for usage in rounds]
    report.add("two workers / one worker (speed)", ratios, "", at_least=1.0)
    report.rounds = [{name: one.seconds for name, one in usage.items()} for usage in rounds]
    return report
