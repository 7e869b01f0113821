"""How much memory does larder.stream take, does it grow with the number of samples, and how well does it shuffle?"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.harness import WORK, BenchmarkReport, run_stage_on_volume
from benchmarks.stream_contestants import Contestant, Epoch, run_contestant
from benchmarks.stream_data import PACK_BYTES, StreamData, stream_data
from larder.contract import META, IndexSummary, Manifest, find_manifest, samples_name
from larder.stream.array_stream import WINDOW_BYTES
from larder.stream.order import Shuffle
from larder.stream.samples import BLOCK_BYTES

FEW, MANY = 20_000, 1_000_000
_PHOTOS = 4000
_TRAINING_SHARE = 9_866 / 16_643
_SMALL_WINDOW = {"window_bytes": 16 << 20, "ahead_bytes": 8 << 20}
"""So small that both numbers of tiny samples fill it."""
_SPLIT = "training"
_PACE = 10_000
"""Images per second of an emulated accelerator, which is slower than decoding, so that batches wait for it, as in
training. Else only a long epoch has a moment when as many batches are in memory as may be."""


def measure(many: int = MANY) -> BenchmarkReport:
    """Peak memory of an epoch: of photographs at batch 256, and of so many tiny images against 20,000."""
    report = BenchmarkReport(f"larder.stream's peak memory, at {many:,} samples / at {FEW:,}, and the order's entropy")
    with (
        tempfile.TemporaryDirectory(dir=WORK, prefix="stream-memory-") as name,
        stream_data(Path(name), data.photos(_PHOTOS)) as found,
    ):
        peak = run_contestant(Contestant("larder_stream"), Path(sys.executable), found).resident_bytes
    report.add(f"{_PHOTOS:,} photographs, batch 256: peak", [peak / 1e6], "MB", at_most=1000)
    with tempfile.TemporaryDirectory(dir=WORK, prefix="stream-memory-") as name:
        few, more = _read_tiny(Path(name), many)
    report.add(f"{few.images:,} tiny samples, batch 256: peak", [few.resident_bytes / 1e6], "MB")
    report.add(f"{more.images:,} tiny samples, batch 256: peak", [more.resident_bytes / 1e6], "MB")
    report.add("peak ratio", [more.resident_bytes / few.resident_bytes], at_most=1.2)
    report.add(f"{more.images:,} tiny samples: first batch", [more.first_seconds], "s")
    for title, samples, image_bytes in (("Food-11", 9_866, 68_000), ("ImageNet", 1_281_167, 110_000)):
        order = _entropy(_order(samples, image_bytes))
        permuted = _entropy(np.random.default_rng(0).permutation(samples))
        report.add(f"entropy of index differences / a permutation's, {title}", [order / permuted], at_least=0.98)
    return report


def _read_tiny(folder: Path, many: int) -> tuple[Epoch, Epoch]:
    """Read an epoch of 20,000 tiny images, and of an index that lists them again and again, in copies of the shards."""
    run_stage_on_volume("extract", folder, "--source", str(data.tiny_tar(round(FEW / _TRAINING_SHARE))))
    run_stage_on_volume("transform", folder)
    run_stage_on_volume("shard", folder, "--shard-bytes", str(PACK_BYTES))
    made = folder / "Food-11-webdataset"
    few = _read(made / _SPLIT)
    manifest = find_manifest(made)
    assert manifest is not None
    _multiply(made, manifest, many // few.images)
    return few, _read(made / _SPLIT)


def _read(shards: Path) -> Epoch:
    found = StreamData({"shards": str(shards)}, {}, psutil.Process(), shards)
    contestant = Contestant("larder_stream", options=_SMALL_WINDOW, images_per_second=_PACE)
    return run_contestant(contestant, Path(sys.executable), found)


def _multiply(made: Path, manifest: Manifest, times: int) -> None:
    """List the training split's samples so many times, each time in links to its shards."""
    index = made / META / samples_name(manifest)
    lines = [line for line in index.read_text().splitlines(keepends=True) if f'"{_SPLIT}/' in line]
    shards = sorted((made / _SPLIT).glob("*.tar"))
    digest, length = hashlib.sha256(), 0
    with index.open("w") as out:
        for number in range(times):
            for shard in shards:
                os.link(shard, shard.with_name(f"copy-{number:04}-{shard.name}"))
            for line in lines:
                text = line.replace(f'"{_SPLIT}/shard-', f'"{_SPLIT}/copy-{number:04}-shard-')
                digest.update(text.encode())
                length += len(text.encode())
                out.write(text)
    summary = manifest.splits[_SPLIT]
    split = summary.model_copy(
        update={
            "samples": summary.samples * times,
            "bytes": summary.bytes * times,
            "samples_per_class": [count * times for count in summary.samples_per_class],
        }
    )
    samples = IndexSummary(bytes=length, sha256=digest.hexdigest())
    changed = manifest.model_copy(update={"splits": {_SPLIT: split}, "samples": samples})
    (made / META / "manifest.json").write_text(changed.to_json())


def _order(samples: int, image_bytes: int) -> NDArray[np.int64]:
    """Return the order of an epoch with the default window."""
    starts = np.append(np.arange(0, samples, BLOCK_BYTES // image_bytes), samples)
    return Shuffle(starts, WINDOW_BYTES // image_bytes, 0).run(0, 0, 1)


def _entropy(order: NDArray[np.int64]) -> float:
    """Return the entropy of the differences between successive numbers, in bits, as MosaicML measures shuffles."""
    _, counts = np.unique(np.abs(np.diff(order)), return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())
