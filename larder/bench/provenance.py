"""Where a figure comes from: the code, the libraries, the machine. No host name, nothing secret."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from larder import __version__
from larder.machine import CGROUP, available_cpus, cpu_quota_cores

CHECKOUT = Path(__file__).resolve().parents[2]
LIBRARIES = ("torch", "torchvision", "pillow", "s3fs", "litdata", "webdataset")


def collect(started: datetime, revision: str = "") -> dict[str, Any]:
    """The provenance of a run that started at `started`, UTC; call it first, for the load that others make.

    `revision` is that of the code; empty is what git says of the checkout.
    """
    return {
        "time_utc": started.isoformat(timespec="seconds"),
        "larder": __version__,
        "revision": revision or git_revision(CHECKOUT),
        "python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
        "device": "cpu",
        "cpu_model": cpu_model(),
        "cores": available_cpus(),
        "cpu_quota_cores": cpu_quota_cores(CGROUP),
        "memory_bytes": psutil.virtual_memory().total,
        "memory_limit_bytes": memory_limit_bytes(CGROUP),
        "platform": platform.platform(),
        "in_container": any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv")),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def git_revision(checkout: Path) -> str | None:
    """The commit that is checked out, with `-dirty` where tracked files differ from it; None outside a checkout."""
    if not (checkout / ".git").exists():  # git would go on looking in the folders above
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name as the kernel gives it, or its architecture."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def memory_limit_bytes(cgroup: Path) -> int | None:
    """A container's limit (`docker run --memory`), or None without one (cgroup v2, memory.max)."""
    limit = _read(cgroup / "memory.max")
    return int(limit) if limit.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
