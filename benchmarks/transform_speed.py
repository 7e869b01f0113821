"""Does transform check headers at 3,000 images/s, and decode as fast as two processes decode from memory?"""

from __future__ import annotations

import io
import multiprocessing
import tempfile
import time
from pathlib import Path

from PIL import Image

from benchmarks import data
from benchmarks.harness import WORK, Report, Run, interleave, stage

ROUNDS = 5


def decode_from_memory(files: list[bytes], start: float) -> float:
    """Decode files that lie in this process's memory; the seconds that it took."""
    time.sleep(max(0.0, start - time.time()))  # both processes begin at once
    began = time.perf_counter()
    for file in files:
        with Image.open(io.BytesIO(file)) as image:
            image.load()
    return time.perf_counter() - began


def _load_and_decode(paths: list[Path], start: float) -> float:
    return decode_from_memory([path.read_bytes() for path in paths], start)


def measure() -> Report:
    """transform's two checks, and two processes that do nothing but decode the same files from memory."""
    report = Report("transform: images per second, and decoding against two processes that do nothing else")
    with tempfile.TemporaryDirectory(dir=WORK, prefix="transform-") as folder:
        volume = Path(folder)
        stage("extract", volume, "--source", str(data.photos()))
        paths = sorted((volume / "raw").rglob("*.jpg"))
        halves = [paths[0::2], paths[1::2]]

        def header(_: int) -> Run:
            return stage("transform", volume, "--verify", "header", "--force", "--workers", "2", cpus=2)

        def decode(_: int) -> Run:
            return stage("transform", volume, "--verify", "decode", "--force", "--workers", "2", cpus=2)

        def from_memory(_: int) -> Run:
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                start = time.time() + 15  # by then both have read their half
                return Run(max(pool.starmap(_load_and_decode, [(half, start) for half in halves])), 0)

        rounds = interleave(ROUNDS, {"header": header, "decode": decode, "decode from memory": from_memory})
    images = len(paths)
    report.add("header checks", [images / took["header"].seconds for took in rounds], "images/s", at_least=3000)
    report.add("decoding", [images / took["decode"].seconds for took in rounds], "images/s")
    ratios = [took["decode from memory"].seconds / took["decode"].seconds for took in rounds]
    report.add("decoding / two processes decoding from memory", ratios, "", at_least=0.9)
    report.rounds = [{name: one.seconds for name, one in took.items()} for took in rounds]
    return report
