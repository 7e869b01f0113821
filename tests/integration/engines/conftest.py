"""A Ray cluster of two nodes, real processes on this machine, and the engines on it."""

from __future__ import annotations

import fcntl
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
from tests.shared import Started, run_folder, shared

ROOT = Path(__file__).resolve().parents[3]
ATTEMPTS = 3


class Cluster(NamedTuple):
    """A Ray cluster: a head without CPUs, and nodes that tests add."""

    address: str

    @contextmanager
    def node(self, cpus: int = 2) -> Iterator[subprocess.Popen[bytes]]:
        """Add a node while the context is open."""
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
    """Start a node. Ray ends a node whose helper processes take longer than 30 s to start; then try again."""
    for attempt in range(ATTEMPTS):
        own = folder / str(attempt)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "ray.scripts.scripts",
                    "start",
                    *options,
                    f"--temp-dir={own}",
                    "--num-gpus=0",
                    "--object-store-memory=100000000",
                    "--disable-usage-stats",
                    "--block",
                    "--include-log-monitor=false",
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
                | {"RAY_memory_monitor_refresh_ms": "0"},  # other tests may need what is left of the machine's memory
                start_new_session=True,
            )
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


def _head(port: int) -> tuple[str, ...]:
    return ("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false", "--no-monitor")


@contextmanager
def start_cluster(misses_nodes_soon: bool = False) -> Iterator[Cluster]:
    """Start a head. It waits long for nodes, so that none counts as lost on a busy machine."""
    [port] = free_ports(1)
    soon = json.dumps({"health_check_period_ms": 500, "health_check_failure_threshold": 3})
    with _running(*_head(port), *([f"--system-config={soon}"] if misses_nodes_soon else [])):
        yield Cluster(f"127.0.0.1:{port}")


@pytest.fixture(scope="session")
def _shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Path]]:
    """Return the cluster that all processes of the test run share, and the file that they lock to use it in turn."""
    with shared(tmp_path_factory, "ray", _start_shared) as facts:
        yield Cluster(facts["address"]), run_folder(tmp_path_factory) / "ray" / "tests"


def _start_shared(_: Path) -> Started:
    [port] = free_ports(1)
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # the path of a socket below it may have 107 bytes
    started = []
    for name, options in (("head", _head(port)), ("node", (f"--address=127.0.0.1:{port}", "--num-cpus=2"))):
        (folder / name).mkdir()
        started.append(str(_started(folder / name, options).pid))
    stop = 'kill -9 "$@"; rm -rf -- "$0"'  # their children end with them
    return Started({"address": f"127.0.0.1:{port}"}, ["sh", "-c", stop, str(folder), *started])


@pytest.fixture
def cluster(_shared_cluster: tuple[Cluster, Path]) -> Iterator[Cluster]:
    """A head, and a node with two CPUs, for one test at a time. Tests that break a cluster start their own."""
    cluster, turns = _shared_cluster
    with turns.open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield cluster


LOCAL = ["local, one worker", "local, two workers", "local, workers later"]
ENGINES = [*LOCAL, pytest.param("ray, no cluster", marks=pytest.mark.exhaustive)]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Runs a test with each engine; `test_work_on_a_cluster` does the same on a cluster."""
    name = request.param
    if name.startswith("local"):
        return LocalEngine(1 if "one" in name else 2, 60 if "later" in name else 0)
    return RayEngine(2)
