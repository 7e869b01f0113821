"""Where does an epoch of larder.stream spend its CPU time? Linux's `perf` counts samples of its second epoch.

Hardware counters aren't needed, so this runs in virtual machines, too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks import data
from benchmarks.harness import ROOT, WORK, BenchmarkReport, CannotRunError
from benchmarks.stream_contestants import CORES
from benchmarks.stream_data import StreamData, stream_data

ROUNDS = 5
_IMAGES = 4000
_HERTZ = 1999
_BATCH_SIZE = 256
_EPOCHS = {
    "from memory": ("shards on disk", "images"),
    "from the store": ("shards", "images"),
    "undecoded, from the store": ("shards", "samples"),
}
"""What is read, and how: a layout of StreamData, and what `main` does."""
_PARTS = (
    ("Huffman codes", r"libjpeg_crop", r"decode_mcu|decode_block|look_up|find_long|make_table|copy_scan|start_scan"),
    ("resizing", r"libjpeg_crop", r"resize_row|blend|weigh|pack_columns|make_row|take_rows"),
    ("inverse DCT, upsampling, colors", r"libjpeg", r""),
    ("sha256", r"libcrypto", r""),
    ("fresh memory", r"kernel", r"clear_|fault|folio|memcg|_lru|mmap|munmap|page_table|zap_|rmqueue"),
    ("reading and waiting", r"kernel", r""),
    ("Python and copies", r"", r""),
)
"""Parts of the work, in this order: a name, a pattern of the library, and one of the function."""
_LINE = re.compile(r"^\s*(?P<time>[\d.]+):\s+(?P<function>.*) \((?P<library>[^()]*)\)$")


class Sample(NamedTuple):
    """What a core did at some time."""

    seconds: float
    library: str
    function: str


def measure() -> BenchmarkReport:
    """An epoch on two cores: images from memory and from a store, and undecoded samples."""
    if shutil.which("perf") is None:
        raise CannotRunError("perf is missing: install linux-perf (Debian) or linux-tools-generic (Ubuntu)")
    report = BenchmarkReport(f"CPU time of larder.stream for each image, of {_IMAGES:,} images' training split")
    with (
        tempfile.TemporaryDirectory(dir=WORK, prefix="stream-profile-") as name,
        stream_data(Path(name), data.photos(_IMAGES)) as found,
    ):
        for title, (layout, variant) in _EPOCHS.items():
            rounds = [_profile(found, layout, variant) for _ in range(ROUNDS)]
            for part, *_ in _PARTS:
                report.add(f"{title}: {part}", [one[part] for one in rounds], "µs")
            report.add(f"{title}: all", [sum(one.values()) for one in rounds], "µs")
            report.rounds += [{"title": title, **one} for one in rounds]
    return report


def _profile(found: StreamData, layout: str, variant: str) -> Mapping[str, float]:
    """Return the CPU time of each part, in microseconds per image."""
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environ |= {**found.settings, "AWS_DEFAULT_REGION": "us-east-1", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as name:
        record = Path(name) / "perf.data"
        command: list[str | Path] = [
            "perf",
            "record",
            "--quiet",
            "-e",
            "cpu-clock",
            "-F",
            str(_HERTZ),
            "-k",
            "mono",
            "-o",
            record,
        ]
        program = [sys.executable, "-m", "benchmarks.stream_profile", found.uris[layout], variant]
        output = _run([*command, "--", *program], environ)
        script = _run(["perf", "script", "-i", record, "-F", "time,ip,sym,dso"], environ)
    begin, end, images = json.loads(output.splitlines()[-1])
    counts = count_parts(sample for sample in parse_script(script) if begin <= sample.seconds <= end)
    return {part: count / _HERTZ / images * 1e6 for part, count in counts.items()}


def _run(command: list[str | Path], environ: Mapping[str, str]) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRunError(f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:].strip()}")
    return done.stdout


def parse_script(script: str) -> Iterable[Sample]:
    """Yield the samples that `perf script` lists."""
    for line in script.splitlines():
        if match := _LINE.match(line):
            yield Sample(float(match["time"]), match["library"], match["function"])


def count_parts(samples: Iterable[Sample]) -> Mapping[str, int]:
    """Return how many samples belong to each part."""
    counts = Counter(
        next(
            part
            for part, library, function in _PARTS
            if re.search(library, sample.library) and re.search(function, sample.function)
        )
        for sample in samples
    )
    return {part: counts[part] for part, *_ in _PARTS}


def main(uri: str, variant: str) -> None:
    """Read two epochs. Print when the second one began and ended, in seconds of the monotonic clock, and its images."""
    import time

    from larder.stream import ShardStream

    stream = ShardStream(uri, batch_size=_BATCH_SIZE, threads=CORES, mode="thread")
    for _ in range(2):
        begin = time.monotonic()
        images = sum(1 for _ in stream.samples()) if variant == "samples" else sum(len(labels) for _, labels in stream)
        end = time.monotonic()
    print(json.dumps([begin, end, images]))


if __name__ == "__main__":
    main(*sys.argv[1:])
