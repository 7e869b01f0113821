"""Does transform check headers at 3,000 images/s, and decode as fast as two processes decode from memory?"""

from __future__ import annotations

import io
import multiprocessing
import tempfile
import time
from pathlib import Path

from PIL import Image

from benchmarks import data
from benchmarks.harness import WORK, BenchmarkReport, ResourceUsage, interleave, run_stage_on_volume

ROUNDS = 5


def _decode_from_memory(paths: list[Path], mode: str | None, start: float) -> float:
    """Read files into memory, decode them to RGB or `mode`, and return the seconds that decoding took."""
    files = [path.read_bytes() for path in paths]
    if time.time() > start:
        raise RuntimeError("reading took so long that the two processes can't begin at once")
    time.sleep(start - time.time())
    began = time.perf_counter()
    for file in files:
        with Image.open(io.BytesIO(file)) as image:
            image.draft(mode, None)
            image.load()
    return time.perf_counter() - began


def measure(images: int) -> BenchmarkReport:
    """Measure transform's two checks, and two processes that only decode the same files from memory."""
    report = BenchmarkReport(
        f"transform of {images:,} images: images per second, and decoding against two processes that do nothing else"
    )
    with tempfile.TemporaryDirectory(dir=WORK, prefix="transform-") as folder:
        volume = Path(folder)
        run_stage_on_volume("extract", volume, "--source", str(data.photos(images)))
        paths = sorted((volume / "raw").rglob("*.jpg"))
        halves = [paths[0::2], paths[1::2]]

        def header(workers: int) -> ResourceUsage:
            return run_stage_on_volume(
                "transform", volume, "--verify", "header", "--force", "--workers", str(workers), cpus=workers
            )

        def decode(_: int) -> ResourceUsage:
            return run_stage_on_volume("transform", volume, "--verify", "decode", "--force", "--workers", "2", cpus=2)

        def from_memory(mode: str | None) -> ResourceUsage:
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                start = time.time() + 15  # by then both have read their half
                return ResourceUsage(
                    max(pool.starmap(_decode_from_memory, [(half, mode, start) for half in halves])), 0
                )

        rounds = interleave(
            ROUNDS,
            {
                "header": lambda _: header(2),
                "header, one core": lambda _: header(1),
                "decode": decode,
                "RGB from memory": lambda _: from_memory(None),
                "luma from memory": lambda _: from_memory("L"),
            },
        )
    images = len(paths)  # your own archive may have another number
    report.add("header checks", [images / usage["header"].seconds for usage in rounds], "images/s", at_least=3000)
    report.add(
        "header checks: two cores / one core (speed)",
        [usage["header, one core"].seconds / usage["header"].seconds for usage in rounds],
        "",
        at_least=1.0,
    )
    report.add("decoding", [images / usage["decode"].seconds for usage in rounds], "images/s")
    # The check decodes all coefficients but leaves out the chroma's inverse transform and the colour matrix.
    for kind, goal in (("RGB", 0.9), ("luma", None)):
        ratios = [usage[f"{kind} from memory"].seconds / usage["decode"].seconds for usage in rounds]
        report.add(f"decoding / two processes decoding {kind} from memory", ratios, "", at_least=goal)
    report.rounds = [{name: one.seconds for name, one in usage.items()} for usage in rounds]
    return report
