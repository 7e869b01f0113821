"""A Ray cluster of two nodes, real processes on this machine, and the engines on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from larder.engines import Engine
from larder.engines.local import LocalEngine
from larder.engines.ray import RayEngine
from tests.conftest import free_ports, wait_until

ROOT = Path(__file__).resolve().parents[3]
ATTEMPTS = 3


class Cluster(NamedTuple):
    """A head without CPUs, and the nodes that are added."""

    address: str

    @contextmanager
    def node(self, cpus: int = 2) -> Iterator[subprocess.Popen[bytes]]:
        """One more node, for as long as the context lasts."""
        with _running(f"--address={self.address}", f"--num-cpus={cpus}") as process:
            yield process


@contextmanager
def _running(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    # A folder each: in one, two nodes that start together take the same socket.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        process = _started(Path(folder), options)
        try:
            yield process
        finally:
            _end(process)


def _started(folder: Path, options: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Start a node. Ray gives its own helpers 30 s, and ends a node whose helpers took longer: it gets another try."""
    for attempt in range(ATTEMPTS):
        own = folder / str(attempt)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "ray.scripts.scripts", "start", *options, f"--temp-dir={own}",
                    "--num-gpus=0", "--object-store-memory=100000000", "--disable-usage-stats", "--block",
                ],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
                | {"RAY_memory_monitor_refresh_ms": "0"},  # other tests may need what is left of the machine's memory
                start_new_session=True,
            )  # fmt: skip
        sign = own / "ray_current_cluster"
        wait_until(lambda: sign.exists() or process.poll() is not None, "the node has started or ended", 180)  # noqa: B023
        if sign.exists():
            return process
    raise AssertionError(f"{ATTEMPTS} nodes ended: {(folder / 'log').read_text()[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()  # its children end with it
        process.wait()


@contextmanager
def start_cluster() -> Iterator[Cluster]:
    """A head alone."""
    [port] = free_ports(1)
    quick = json.dumps({"health_check_period_ms": 500, "health_check_failure_threshold": 3})  # to miss a node sooner
    with _running("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false", f"--system-config={quick}"):
        yield Cluster(f"127.0.0.1:{port}")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A head, and a node with two CPUs. Whoever breaks a cluster starts one of its own."""
    with start_cluster() as cluster, cluster.node():
        yield cluster


ENGINES = ["local, one worker", "local, two workers", "local, workers later", "ray, no cluster", "ray, a cluster"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Runs a test with each engine."""
    name = request.param
    if name.startswith("local"):
        return LocalEngine(1 if "one" in name else 2, 60 if "later" in name else 0)
    return RayEngine(2, request.getfixturevalue("cluster").address if "a cluster" in name else "")
