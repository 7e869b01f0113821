"""Does the order of an epoch still work at 100 million samples, and what do indexes and opening take per sample?

`python -m benchmarks.stream_scale order SAMPLES RANKS` and `... open FOLDER` are what it measures, each in a process
of its own.
"""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import ROOT, WORK, BenchmarkReport
from larder.contract import META, IndexEntry, IndexSummary, Manifest, SampleEntry, SplitSummary, samples_name
from larder.stream import ShardStream
from larder.stream.array_stream import WINDOW_BYTES
from larder.stream.order import Shuffle
from larder.stream.samples import BLOCK_BYTES

MANY, OPENED = 100_000_000, 1_000_000
"""Samples of the order, and of the index that is opened."""
IMAGE_BYTES, SHARD_BYTES = 110_000, 64 << 20
"""ImageNet's mean length of an image, and larder's size of a shard."""
_RANKS, _CLASSES, _SAMPLED_LINES = 64, 1000, 20_000
_STORED_BYTES = IMAGE_BYTES + 2048
"""With tar headers, padding and label."""
_SPLIT = "training"


def measure(samples: int = MANY) -> BenchmarkReport:
    """Compute the order for one rank and for one of 64; open an index; measure the lines of indexes of that size."""
    report = BenchmarkReport(f"larder.stream's order, indexes and manifest at {samples:,} samples")
    for ranks in (1, _RANKS):
        order = _child("order", str(samples), str(ranks))
        report.rounds.append(order | {"samples": samples, "ranks": ranks})
        name = f"order of {order['samples_of_rank']:,} samples, one of {ranks} ranks"
        report.add(f"{name}: CPU", [order["seconds"]], "s")
        report.add(f"{name}: peak memory above that of imports", [order["bytes"] / 1e9], "GB")
    opened = min(OPENED, samples)
    with tempfile.TemporaryDirectory(dir=WORK, prefix="stream-scale-") as name:
        make_index(Path(name), opened)
        found = _child("open", f"{name}/{_SPLIT}")
        manifest_bytes = (Path(name) / META / "manifest.json").stat().st_size
    report.rounds.append(found | {"samples": opened})
    report.add(f"open an index of {opened:,} samples: CPU", [found["seconds"] / opened * 1e6], "µs/sample")
    report.add("peak memory above that of imports", [found["bytes"] / opened], "B/sample")
    lines = [len(_sample(number).to_json()) + 1 for number in range(0, samples, max(samples // _SAMPLED_LINES, 1))]
    report.add("index of samples", [sum(lines) / len(lines)], "B/sample")
    shards = samples * _STORED_BYTES // SHARD_BYTES + 1
    entry = IndexEntry(f"{_SPLIT}/shard-{shards:06}.tar", SHARD_BYTES, "0" * 64, None)
    report.add(f"index of {shards:,} shards", [(len(entry.to_json()) + 1) * shards / 1e6], "MB")
    report.add(f"manifest, {_CLASSES:,} classes", [manifest_bytes / 1e3], "kB")
    return report


def make_index(folder: Path, samples: int) -> None:
    """Write the manifest and the index of samples of shards that aren't there."""
    (folder / META).mkdir()
    digest, length = hashlib.sha256(), 0
    with (folder / META / "samples.jsonl").open("wb") as file:
        for number in range(samples):
            line = f"{_sample(number).to_json()}\n".encode()
            digest.update(line)
            length += file.write(line)
    per_class = [len(range(label, samples, _CLASSES)) for label in range(_CLASSES)]
    manifest = Manifest(
        artifact="webdataset",
        dataset="scale",
        classes=[f"class {label}" for label in range(_CLASSES)],
        splits={_SPLIT: SplitSummary(samples=samples, bytes=samples * IMAGE_BYTES, samples_per_class=per_class)},
        input={},
        settings={},
        files=samples * _STORED_BYTES // SHARD_BYTES + 1,
        bytes=samples * _STORED_BYTES,
        index=IndexSummary(bytes=0, sha256=hashlib.sha256().hexdigest()),
        samples=IndexSummary(bytes=length, sha256=digest.hexdigest()),
    )
    (folder / META / "manifest.json").write_text(manifest.to_json())
    assert samples_name(manifest) == "samples.jsonl"


def _sample(number: int) -> SampleEntry:
    per_shard = SHARD_BYTES // _STORED_BYTES
    shard, place = divmod(number, per_shard)
    label = number % _CLASSES
    return SampleEntry(
        file=f"{_SPLIT}/shard-{shard:06}.tar",
        offset=place * _STORED_BYTES + 512,
        bytes=IMAGE_BYTES,
        sha256=hashlib.sha256(number.to_bytes(8, "big")).hexdigest(),
        label=label,
        source=f"{_SPLIT}/class_{label:03}/{number:09}.jpg",
    )


def _child(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stream_scale", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{words} ended with {done.returncode}: {done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def compute_order(samples: int, ranks: int) -> NDArray[np.int64]:
    """Return the order of the first rank."""
    starts = np.append(np.arange(0, samples, BLOCK_BYTES // _STORED_BYTES), samples)
    return Shuffle(starts, WINDOW_BYTES // _STORED_BYTES, 0).run(0, 0, ranks)


def require_each_once(order: NDArray[np.int64], samples: int, ranks: int) -> None:
    """Raise RuntimeError if the order of the first rank lacks samples, or has one twice."""
    seen = np.zeros(samples, bool)
    seen[order] = True
    if not int(seen.sum()) == len(order) == samples // ranks:
        raise RuntimeError(f"of {samples // ranks:,} samples, {int(seen.sum()):,} different ones came")


def _measured(work: str, *arguments: str) -> Iterator[tuple[str, float]]:
    """Yield the rank's samples, CPU seconds (a busy machine would add to others), and peak memory."""
    before, begin = _peak_bytes(), time.process_time()
    if work == "order":
        samples, ranks = map(int, arguments)
        order = compute_order(samples, ranks)
        yield "samples_of_rank", len(order)
    else:
        yield "samples_of_rank", ShardStream(arguments[0], batch_size=256, rank=0, world_size=1).samples_per_epoch
    yield "seconds", round(time.process_time() - begin, 3)
    yield "bytes", _peak_bytes() - before
    if work == "order":
        require_each_once(order, samples, ranks)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    print(json.dumps(dict(_measured(*sys.argv[1:]))))
