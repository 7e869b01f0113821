"""What does larder.stream cost a training loop on the same cores, with its threads and with its child process?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import data
from benchmarks.harness import ROOT, WORK, BenchmarkReport, ResourceUsage, interleave, run_stage, run_stage_on_volume
from benchmarks.store import loopback_store

ROUNDS = 5
CORES = 2
MODES = ("thread", "process")
_BATCH_SIZE = 64
_LOOP = """
import itertools, json, sys, time
import torch
from larder.stream import ShardStream, normalize

uri, source, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
torch.manual_seed(0)

def batches():
    if source == "synthetic":
        images = torch.randint(0, 256, (64, 224, 224, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        return itertools.repeat((images, torch.randint(0, 11, (64,))), int(sys.argv[4]))
    return ShardStream(uri, batch_size=64, mode=source, threads=threads)

def measure(step):
    begin = time.perf_counter()
    read = iter(batches())
    step(*next(read))
    first = time.perf_counter()
    steps = images = 0
    for batch in read:
        before = time.perf_counter()
        step(*batch)
        steps += time.perf_counter() - before
        images += len(batch[1])
    end = time.perf_counter()
    found = {"seconds": end - first, "first_seconds": first - begin, "steps_seconds": steps, "images": images}
    print(json.dumps(found))
"""
_STEPS = {
    "a network": """
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 16, 7, 4), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, 2), torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 11),
).to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(network.parameters(), 0.01)

def step(images, labels):
    loss = torch.nn.functional.cross_entropy(network(normalize(images)), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

measure(step)
""",
    "many small operations": """
# As the Python of a trainer with a GPU: thousands of operations that take microseconds each, and what surrounds them.
network = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(60)), torch.nn.Linear(16, 11))
optimizer = torch.optim.Adam(network.parameters(), foreach=False)

def step(images, labels):
    inputs = images[:, 0, :4, :4].flatten(1).float() / 255
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(network(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    metrics = {}
    for number in range(400_000):
        metrics[number % 100] = metrics.get(number % 100, 0.0) * 0.9 + number * 0.1

measure(step)
""",
    "nothing": """
measure(lambda images, labels: None)
""",
}


@dataclass(frozen=True)
class _Loop(ResourceUsage):
    """A training loop, without the program's start and the first batch."""

    images: int
    first_seconds: float
    steps_seconds: float
    """Time that the steps took, without waiting for batches."""


def measure() -> BenchmarkReport:
    """Train beside one decoding thread on two cores, with each mode and with synthetic data, in turns."""
    report = BenchmarkReport(
        f"a training loop on {CORES} cores, of which one thread of larder.stream decodes: in its process, in a child "
        "process, and without reading"
    )
    with tempfile.TemporaryDirectory(dir=WORK, prefix="stream-mode-") as name:
        folder = Path(name)
        batches = _prepare(folder)
        with loopback_store(folder / "store") as settings:
            run_stage("load", settings | {"LARDER_VOLUME_DIR": str(folder / "shards"), "LARDER_LOAD": "webdataset"})
            uri = f"s3://{settings['S3_BUCKET']}/Food-11-webdataset/training"

            def contestant(step: str, source: str) -> Callable[[int], _Loop]:
                threads = CORES if step == "nothing" else CORES - 1
                return lambda _: _run(_STEPS[step], settings, uri, source, str(threads), str(batches))

            programs = {
                f"{step}, {source}": contestant(step, source)
                for step in _STEPS
                for source in (*MODES, "synthetic")
                if (step, source) != ("nothing", "synthetic")
            }
            rounds = interleave(ROUNDS, programs)
    _compare(report, rounds)
    report.rounds = [{name: vars(one) for name, one in took.items()} for took in rounds]
    return report


def _prepare(folder: Path) -> int:
    """Make shards. Return the number of batches of their training split."""
    for name in ("volume", "shards"):
        (folder / name).mkdir()
    run_stage_on_volume("extract", folder / "volume", "--source", str(data.photos(data.FEW_IMAGES)))
    run_stage_on_volume("transform", folder / "volume")
    run_stage_on_volume("shard", folder / "shards", "--input", str(folder / "volume" / "Food-11"))
    manifest = json.loads((folder / "shards/Food-11-webdataset/_larder/manifest.json").read_text())
    return -(-int(manifest["splits"]["training"]["samples"]) // _BATCH_SIZE)


def _run(step: str, settings: Mapping[str, str], *arguments: str) -> _Loop:
    """Run one loop in a process of its own."""
    allowed = sorted(os.sched_getaffinity(0))[:CORES]
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", _LOOP + step, *arguments],
        env=environ | dict(settings) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"a loop ended with {done.returncode}: {done.stderr[-2000:]}")
    return _Loop(peak_bytes=0, **json.loads(done.stdout.splitlines()[-1]))


def _compare(report: BenchmarkReport, rounds: Sequence[Mapping[str, _Loop]]) -> None:
    def ratios(name: str, other: str, figure: str = "seconds") -> list[float]:
        return [getattr(took[name], figure) / getattr(took[other], figure) for took in rounds]

    for step in ("a network", "many small operations"):
        alone = f"{step}, synthetic"
        report.add(alone, [took[alone].seconds for took in rounds], "s")
        for mode in MODES:
            report.add(f"{step}, {mode} / without reading", ratios(f"{step}, {mode}", alone))
            report.add(f"  its steps alone, {mode} / without", ratios(f"{step}, {mode}", alone, "steps_seconds"))
    for step in _STEPS:
        report.add(f"{step}, process / thread", ratios(f"{step}, process", f"{step}, thread"))
    for mode in MODES:
        took_alone = [took[f"nothing, {mode}"] for took in rounds]
        report.add(f"reading alone, {mode}", [one.images / one.seconds for one in took_alone], "images/s")
        report.add(f"first batch, {mode}", [one.first_seconds for one in took_alone], "s")
