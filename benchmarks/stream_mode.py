"""What does larder.stream cost a training loop on the same cores, with its threads and with its child process?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import data
from benchmarks.harness import ROOT, WORK, BenchmarkReport, run_stage, run_stage_on_volume
from benchmarks.store import loopback_store

ROUNDS = 5
CORES = 2
_LOOP = """
import itertools, json, sys, time
import torch
from larder.stream import ShardStream, normalize

uri, threads, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
torch.manual_seed(0)
streams = {mode: ShardStream(uri, batch_size=64, mode=mode, threads=threads) for mode in ("thread", "process")}
length = len(streams["thread"])
images = torch.randint(0, 256, (64, 224, 224, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
synthetic = images, torch.randint(0, 11, (64,))

def waited():
    "The time that this thread was ready and no core was free."
    return int(open("/proc/thread-self/schedstat").read().split()[1]) / 1e9

def epoch(source, step):
    begin = time.perf_counter()
    read = iter(streams[source]) if source in streams else itertools.repeat(synthetic, length)
    step(*next(read))
    first, waited_first = time.perf_counter(), waited()
    steps = 0
    for batch in read:
        before = time.perf_counter() - waited()
        step(*batch)
        steps += time.perf_counter() - waited() - before
    seconds = time.perf_counter() - first
    net = seconds - (waited() - waited_first)
    return {"seconds": seconds, "first_seconds": first - begin, "net_seconds": net, "steps_seconds": steps}

def measure(step):
    sources = ["synthetic", *streams]
    for number in range(rounds + 1):  # the first one warms up
        order = sources if number % 2 else sources[::-1]
        print(json.dumps({source: epoch(source, step) for source in order}), flush=True)
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
}


Epoch = dict[str, float]
"""How long an epoch took: `seconds`, after `first_seconds` until the first step was done. `net_seconds` leaves out the
time in which the loop was ready to go on and no core was free, as on a busy machine; `steps_seconds` leaves out waiting
for batches, too."""


def measure() -> BenchmarkReport:
    """Train beside one decoding thread on two cores, with each mode and with synthetic data, in turns."""
    report = BenchmarkReport(
        f"a training loop on {CORES} cores, of which one thread of larder.stream decodes: in its process, in a child "
        "process, and without reading"
    )
    with tempfile.TemporaryDirectory(dir=WORK, prefix="stream-mode-") as name:
        folder = Path(name)
        _prepare(folder)
        with loopback_store(folder / "store") as settings:
            run_stage("load", settings | {"LARDER_VOLUME_DIR": str(folder / "shards"), "LARDER_LOAD": "webdataset"})
            uri = f"s3://{settings['S3_BUCKET']}/Food-11-webdataset/training"
            for step, program in _STEPS.items():
                rounds = _run(program, settings, uri, str(CORES - 1), str(ROUNDS))
                _compare(report, step, rounds[1:])
                report.rounds += [{"step": step, **took} for took in rounds[1:]]
    return report


def _prepare(folder: Path) -> None:
    """Make shards."""
    for name in ("volume", "shards"):
        (folder / name).mkdir()
    run_stage_on_volume("extract", folder / "volume", "--source", str(data.photos(data.FEW_IMAGES)))
    run_stage_on_volume("transform", folder / "volume")
    run_stage_on_volume("shard", folder / "shards", "--input", str(folder / "volume" / "Food-11"))


def _run(program: str, settings: Mapping[str, str], *arguments: str) -> list[dict[str, Epoch]]:
    """Run one program's loops, in one process. Return an epoch of each source for each round."""
    allowed = sorted(os.sched_getaffinity(0))[:CORES]
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", _LOOP + program, *arguments],
        env=environ | dict(settings) | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _compare(report: BenchmarkReport, step: str, rounds: Sequence[Mapping[str, Epoch]]) -> None:
    def ratios(source: str, other: str, figure: str = "seconds") -> list[float]:
        return [took[source][figure] / took[other][figure] for took in rounds]

    report.add(f"{step}, without reading", [took["synthetic"]["seconds"] for took in rounds], "s")
    for mode in ("thread", "process"):
        report.add(f"{step}, {mode} / without reading", ratios(mode, "synthetic"))
        report.add("  net of waiting for a core", ratios(mode, "synthetic", "net_seconds"))
        report.add("  net of waiting for batches, too", ratios(mode, "synthetic", "steps_seconds"))
        report.add(f"  first batch and step, {mode}", [took[mode]["first_seconds"] for took in rounds], "s")
    report.add(f"{step}, process / thread", ratios("process", "thread"))
    report.add("  net of waiting for a core", ratios("process", "thread", "net_seconds"))
    report.add("  net of waiting for batches, too", ratios("process", "thread", "steps_seconds"))
