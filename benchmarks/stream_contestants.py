"""Run the contestants of the stream's benchmarks, each in a process of its own, on the same cores."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness import ROOT, BenchmarkReport, ResourceUsage
from benchmarks.stream_data import StreamData
from benchmarks.stream_peers.environments import install_command, python_of

CORES = 2
_TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Contestant:
    """What takes part in a benchmark.

    Attributes:
        module: The module in `benchmarks.stream_peers`.
        layout: The layout that it reads: a name in `StreamData.uris`.
        recipe: How it decodes; see `benchmarks.stream_peers.recipes`.
        variant: The module's variant.
        batch_size: Images per batch.
        options: Numbers for the module.
        images_per_second: Rate of an emulated accelerator that takes the batches; 0 takes them at once.
    """

    module: str
    layout: str = "shards"
    recipe: str = "float32"
    variant: str = ""
    batch_size: int = 256
    options: Mapping[str, Any] = field(default_factory=dict)
    images_per_second: float = 0

    @property
    def arm(self) -> str:
        """The arm whose packages it needs; the module's name if there is none."""
        return self.variant if self.module == "arm" else self.module


@dataclass(frozen=True)
class Epoch(ResourceUsage):
    """One epoch, from before the data are opened to the last batch; imports are done before.

    Attributes:
        images: Number of images.
        first_seconds: Time to the first batch.
        store_seconds: CPU time of the store.
        cpu_seconds: CPU time of the contestant and its processes.
        resident_bytes: Peak of the resident memory of the contestant's first process, imports included.
        written_bytes: Bytes that were written to disk, in the cache or elsewhere.
        busy: Share of the time after the first batch that an emulated accelerator works.
        bytes: Bytes that larder.stream read.
        requests: Requests that larder.stream sent.
    """

    images: int
    first_seconds: float
    store_seconds: float
    cpu_seconds: float
    resident_bytes: int
    written_bytes: int
    busy: float
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

    @property
    def cpu_rate(self) -> float:
        """Images per second if the cores never waited, the store's work included. Busy machines change it less."""
        return self.images / ((self.cpu_seconds + self.store_seconds) / CORES)

    @property
    def net_cpu_rate(self) -> float:
        """The same without the store's work."""
        return self.images / (self.cpu_seconds / CORES)


def programs(
    contestants: Mapping[str, Contestant], data: StreamData, report: BenchmarkReport
) -> dict[str, Callable[[int], Epoch]]:
    """Return a function for each contestant that runs it. Those that aren't installed are left out, with a note."""
    found: dict[str, Callable[[int], Epoch]] = {}
    for name, one in contestants.items():
        if python := python_of(one.arm):
            found[name] = partial(_try_twice, name, one, python, data, report)
        else:
            report.notes.append(f"{name} is left out; to install it, run: {install_command(one.arm)}")
    return found


def _try_twice(name: str, one: Contestant, python: Path, data: StreamData, report: BenchmarkReport, _: int) -> Epoch:
    """Run a contestant, and once more if it fails: some fail now and then, which is noted."""
    try:
        return run_contestant(one, python, data)
    except RuntimeError as error:
        report.notes.append(f"{name} failed once: {str(error).splitlines()[-1]}")
        return run_contestant(one, python, data)


def run_contestant(one: Contestant, python: Path, data: StreamData) -> Epoch:
    """Run one contestant for an epoch. Raises RuntimeError if it fails."""
    folder = Path(tempfile.mkdtemp(dir=data.shards.parent, prefix="cache-"))
    allowed = sorted(os.sched_getaffinity(0))[:CORES]
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environ |= {**data.settings, "AWS_DEFAULT_REGION": "us-east-1", "PYTHONPATH": str(ROOT)}
    command = [
        str(python), "-m", f"benchmarks.stream_peers.{one.module}", data.uris[one.layout], str(folder),
        "--batch-size", str(one.batch_size), "--workers", str(CORES), "--recipe", one.recipe, "--variant", one.variant,
        "--options", json.dumps(dict(one.options)), "--images-per-second", str(one.images_per_second),
    ]  # fmt: skip
    before = _cpu_seconds(data.store)
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, allowed),
            check=False,
            timeout=_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{one.module} didn't end within {_TIMEOUT_SECONDS} s") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    took = _cpu_seconds(data.store) - before
    if done.returncode:
        raise RuntimeError(f"{one.module} ended with {done.returncode}: {done.stderr[-2000:].strip()}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Epoch(peak_bytes=0, store_seconds=took, **found)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
