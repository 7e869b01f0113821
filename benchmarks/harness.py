"""Run programs in turns, and report their time and memory."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psutil

ROOT = Path(__file__).parent.parent
WORK = Path(os.environ.get("LARDER_HOME", ROOT / ".larder")).resolve() / "benchmarks"
RESULTS = Path(os.environ.get("LARDER_RESULTS", ROOT / "results")).resolve() / "benchmarks"
_SAMPLE_SECONDS = 0.05


class CannotRunError(Exception):
    """A benchmark lacks what it needs on this machine."""


@dataclass(frozen=True)
class Figure:
    """One measured figure: the median of the rounds, the smallest and the largest, and the goal."""

    name: str
    median: float
    low: float
    high: float
    unit: str
    goal: str
    reached: bool | None

    def row(self) -> str:
        """Format the figure as a line of a table."""
        verdict = {True: "reached", False: "MISSED", None: ""}[self.reached]
        return (
            f"{self.name:<58} {self.median:>10,.2f} {self.unit:<12} ({self.low:,.2f} to {self.high:,.2f})"
            f"  {self.goal} {verdict}"
        )


@dataclass
class BenchmarkReport:
    """The result of a benchmark, with every round."""

    question: str
    figures: list[Figure] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What isn't measured, and why."""

    def add(
        self,
        name: str,
        values: Iterable[float],
        unit: str = "",
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Add a figure from its value in each round."""
        seen = list(values)
        middle = statistics.median(seen)
        goal, reached = "", None
        if at_least is not None:
            goal, reached = f"goal: at least {at_least:,g}", middle >= at_least
        if at_most is not None:
            goal, reached = f"goal: at most {at_most:,g}", middle <= at_most
        self.figures.append(Figure(name, middle, min(seen), max(seen), unit, goal, reached))

    def save(self, name: str) -> Path:
        """Write the report with its provenance."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
        path.write_text(json.dumps(asdict(self) | {"provenance": provenance()}, indent=2) + "\n")
        return path


@dataclass(frozen=True)
class ResourceUsage:
    """What a finished process and its children took."""

    seconds: float
    peak_bytes: int
    """Largest sum of the processes' proportional set sizes; 0 if memory wasn't watched."""


def run(
    command: Sequence[str | Path],
    *,
    cpus: int | None = None,
    watch_memory: bool = False,
    environ: Mapping[str, str] | None = None,
) -> ResourceUsage:
    """Run a command to its end on the first `cpus` cores, with `environ` added. Raises RuntimeError if it fails."""
    allowed = sorted(os.sched_getaffinity(0))[:cpus]
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT,
        env=_clean_environment() | dict(environ or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    watch = _Memory(process.pid) if watch_memory else None
    _, stderr = process.communicate()
    seconds = time.perf_counter() - start
    if process.returncode != 0:
        raise RuntimeError(f"{command} ended with {process.returncode}: {stderr.decode()[-2000:]}")
    return ResourceUsage(seconds, watch.stop() if watch else 0)


def engine_answers() -> bool:
    """Return whether this machine has a container engine."""
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def _clean_environment() -> dict[str, str]:
    """Return this environment without the user's settings."""
    ours = ("LARDER_", "FOOD11_", "AWS_", "S3_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def run_stage_on_volume(name: str, volume: Path, *flags: str, **options: Any) -> ResourceUsage:
    """Run a stage on a volume, without the user's settings."""
    command = [sys.executable, "-m", f"services.{name}", "--volume", str(volume), "--log", "line", *flags]
    return run(command, **options)


def run_stage(name: str, settings: Mapping[str, str], *flags: str, watch_memory: bool = False) -> ResourceUsage:
    """Run a stage with settings in its environment, where other processes don't see secrets."""
    command = [sys.executable, "-m", f"services.{name}", "--log", "line", *flags]
    return run(command, watch_memory=watch_memory, environ=settings)


def drop_from_cache(folder: Path) -> None:
    """Drop the files below a folder from the page cache, so that they are read from disk."""
    os.sync()  # dirty pages can't be dropped
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


_Usage = TypeVar("_Usage", bound=ResourceUsage)


def interleave(rounds: int, programs: Mapping[str, Callable[[int], _Usage]]) -> list[dict[str, _Usage]]:
    """Run the programs in turns, in alternating order, after a warm-up round. Ctrl-C keeps the complete rounds."""
    counted: list[dict[str, _Usage]] = []
    try:
        for number in range(rounds + 1):
            usage = _run_round(number, programs)
            if number:
                counted.append(usage)
    except KeyboardInterrupt:
        if not counted:
            raise
        print(f"  interrupted: {len(counted)} of {rounds} rounds count", flush=True)
    return counted


def _run_round(number: int, programs: Mapping[str, Callable[[int], _Usage]]) -> dict[str, _Usage]:
    order = list(programs.items())
    usage = {}
    for name, program in order if number % 2 else reversed(order):
        os.sync()  # no program pays for another's writes
        usage[name] = program(number)
        print(f"  round {number}{'' if number else ' (warm-up)'}: {name} {usage[name].seconds:.2f} s", flush=True)
    return usage


class _Memory:
    """Watches the memory of a process and its children."""

    def __init__(self, pid: int) -> None:
        self._process, self._peak, self._ended = psutil.Process(pid), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._ended.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._peak = max(self._peak, self._now())

    def _now(self) -> int:
        total = 0
        try:
            for process in (self._process, *self._process.children(recursive=True)):
                total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return 0  # one of them has just ended: the next sample counts
        return total


def provenance() -> dict[str, Any]:
    """Return the machine, the revision and the load."""
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "revision": revision.stdout.strip(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "load_at_end": os.getloadavg()[0],
    }
