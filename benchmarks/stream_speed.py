"""Does larder.stream reach the rate of decoding alone, from memory and from a store, and what do peers reach?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import data
from benchmarks.harness import ROOT, WORK, BenchmarkReport, ResourceUsage, interleave, run_stage, run_stage_on_volume
from benchmarks.store import loopback_store

ROUNDS = 5
CORES = 2
_LOOP = """
import json, sys, time

def measure(open_batches, count):
    begin = time.perf_counter()
    batches = iter(open_batches())
    images = count(next(batches))
    first = time.perf_counter() - begin
    begun, rest = time.perf_counter(), 0
    for batch in batches:
        rest += count(batch)
    end = time.perf_counter()
    print(json.dumps({"images": images + rest, "seconds": end - begin, "first_seconds": first, **extra}))

extra = {}
uri = sys.argv[1]
"""
_PROGRAMS = {
    "decode alone": """
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np, simplejpeg

files = [path.read_bytes() for path in sorted(Path(uri).rglob("*.jpg"))]
largest = max(height * width * 3 for height, width, *_ in map(simplejpeg.decode_jpeg_header, files))

def decode(share):
    memory = np.empty(largest, np.uint8)
    for file in share:
        height, width, *_ = simplejpeg.decode_jpeg_header(file)
        simplejpeg.decode_jpeg(file, "RGB", buffer=memory[: height * width * 3].reshape(height, width, 3))
    return len(share)

def batches():
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(decode, [files[at : at + 32] for at in range(0, len(files), 32)])

measure(batches, lambda number: number)
""",
    "stream from memory": """
from larder.stream.array_stream import ArrayStream

stream = ArrayStream(uri, batch_size=256, threads=2)
measure(lambda: stream, lambda batch: len(batch[1]))
""",
    "stream from the store": """
import torch
from larder.stream import ShardStream

def batches():
    global stream
    stream = ShardStream(uri, batch_size=256, threads=2)
    yield from stream
    extra.update(bytes=stream.bytes_read, requests=stream.requests)

measure(batches, lambda batch: len(batch[1]))
""",
    "stream, second epoch": """
from larder.stream import ShardStream

stream = ShardStream(uri, batch_size=256, threads=2)
for _ in stream:
    pass
measure(lambda: stream, lambda batch: len(batch[1]))
""",
    "stream, resumed": """
from larder.stream import ShardStream

def batches():
    stream = ShardStream(uri, batch_size=256, threads=2)
    state = stream.state_dict()
    state["segments"] = [[1, 256, "keep", len(stream) // 2]]
    stream.load_state_dict(state)
    yield from stream

import torch
measure(batches, lambda batch: len(batch[1]))
""",
    "webdataset": """
from larder.loaders.shards import ShardLoader

folder, _, split = uri.rpartition("/")
with ShardLoader(folder, split, batch_size=256, workers=2, library="webdataset", check_digests=False) as loader:
    measure(lambda: loader, lambda batch: len(batch[1]))
""",
    "litdata": """
import os
from larder.loaders.chunks import ChunkLoader

folder, _, split = uri.rpartition("/")
with ChunkLoader(folder, split, batch_size=256, workers=2, check_digests=False, cache_dir=sys.argv[2]) as loader:
    measure(lambda: loader, lambda batch: len(batch[1]))
""",
}


@dataclass(frozen=True)
class _Epoch(ResourceUsage):
    """One epoch, without the program's start."""

    images: int
    first_seconds: float
    store_seconds: float
    """CPU time of the store."""
    bytes: int = 0
    requests: int = 0

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds

    @property
    def net_rate(self) -> float:
        """Images per second if the store took none of the cores' time."""
        return self.images / (self.seconds - self.store_seconds / CORES)


def measure(images: int) -> BenchmarkReport:
    """An epoch of Resize(256) and CenterCrop(224) on two cores, of each contestant, in turns."""
    report = BenchmarkReport(f"an epoch of {images:,} images' training split on {CORES} cores, store included")
    with tempfile.TemporaryDirectory(dir=WORK, prefix="stream-") as name:
        folder = Path(name)
        tree, shards = _prepare(folder, images)
        with loopback_store(folder / "store") as settings:
            for kind in ("webdataset", "litdata"):
                volume = folder / ("shards" if kind == "webdataset" else "chunks")
                run_stage("load", settings | {"LARDER_VOLUME_DIR": str(volume), "LARDER_LOAD": kind})
            store = _process_of(settings["S3_ENDPOINT_URL"])
            bucket = f"s3://{settings['S3_BUCKET']}/Food-11"
            uris = {
                "decode alone": str(tree / "training"),
                "stream from memory": str(shards / "training"),
                "webdataset": f"{bucket}-webdataset/training",
                "litdata": f"{bucket}-litdata/training",
            }

            def contestant(name: str) -> Callable[[int], ResourceUsage]:
                uri = uris.get(name, f"{bucket}-webdataset/training")
                return lambda _: _run(_PROGRAMS[name], uri, settings, store, folder)

            rounds = interleave(ROUNDS, {name: contestant(name) for name in _PROGRAMS})
        stored_bytes = sum(path.stat().st_size for path in (shards / "training").iterdir())
    _compare(report, rounds, stored_bytes)
    report.rounds = [{name: vars(one) for name, one in took.items()} for took in rounds]
    return report


def _prepare(folder: Path, images: int) -> tuple[Path, Path]:
    """Make tree, shards and chunks. Return the folders of tree and shards."""
    for name in ("volume", "shards", "chunks"):
        (folder / name).mkdir()
    run_stage_on_volume("extract", folder / "volume", "--source", str(data.photos(images)))
    run_stage_on_volume("transform", folder / "volume")
    tree = folder / "volume" / "Food-11"
    run_stage_on_volume("shard", folder / "shards", "--input", str(tree))
    run_stage_on_volume("optimize", folder / "chunks", "--input", str(tree))
    return tree, folder / "shards" / "Food-11-webdataset"


def _run(program: str, uri: str, settings: Mapping[str, str], store: psutil.Process, folder: Path) -> _Epoch:
    """Run one contestant in a process of its own."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    allowed = sorted(os.sched_getaffinity(0))[:CORES]
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environ |= {**settings, "LITDATA_BATCH_DECODE": "all", "PYTHONPATH": str(ROOT)}
    before = _cpu_seconds(store)
    done = subprocess.run(
        [sys.executable, "-c", _LOOP + program, uri, str(cache)],
        env=environ,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"a contestant ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return _Epoch(peak_bytes=0, store_seconds=_cpu_seconds(store) - before, **found)


def _compare(report: BenchmarkReport, rounds: Sequence[Mapping[str, Any]], stored_bytes: int) -> None:
    def ratios(name: str, other: str, figure: str = "rate") -> list[float]:
        return [getattr(took[name], figure) / took[other].rate for took in rounds]

    for name in _PROGRAMS:
        report.add(name, [took[name].rate for took in rounds], "images/s")
    report.add("stream from memory / decode alone", ratios("stream from memory", "decode alone"), at_least=0.9)
    net = ratios("stream from the store", "stream from memory", "net_rate")
    report.add("stream from the store, net of the store / from memory", net, at_least=0.95)
    for peer in ("webdataset", "litdata"):
        report.add(f"stream from the store / {peer}", ratios("stream from the store", peer), at_least=5)
    report.add("first epoch / second", ratios("stream from the store", "stream, second epoch"), at_least=0.97)
    firsts = [took["stream from the store"].first_seconds for took in rounds]
    report.add("first batch", firsts, "s", at_most=1.0)
    sooner = [took["litdata"].first_seconds / took["stream from the store"].first_seconds for took in rounds]
    report.add("first batch of litdata / first batch", sooner, at_least=10)
    resumed = [took["stream, resumed"].first_seconds / took["stream from the store"].first_seconds for took in rounds]
    report.add("first batch when resumed / first batch", resumed, at_most=1.2)
    streamed = [took["stream from the store"] for took in rounds]
    report.add("bytes read / stored", [epoch.bytes / stored_bytes for epoch in streamed], at_most=1.02)
    requests = [epoch.requests / (epoch.bytes / (4 << 20)) for epoch in streamed]
    report.add("requests / blocks of 4 MiB", requests, at_most=1.1)


def _process_of(endpoint: str) -> psutil.Process:
    """Return the process that listens at an address of this machine."""
    port = int(endpoint.rpartition(":")[2])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return psutil.Process(connection.pid)
        time.sleep(0.1)
    raise RuntimeError(f"nobody listens at {endpoint}")


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
