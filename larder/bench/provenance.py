"""Record the code, libraries and machine of a measurement, without host names or secrets."""

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
from larder.bench.run_record import RecordField
from larder.distant.find import find_link
from larder.machine import CGROUP, available_cpus, cpu_quota_cores

CHECKOUT = Path(__file__).resolve().parents[2]
LIBRARIES = ("torch", "torchvision", "pillow", "s3fs", "litdata", "webdataset")
PROVENANCE_FIELDS = {
    "time_utc": RecordField("", "start of the run"),
    "larder": RecordField("", "version of larder"),
    "revision": RecordField("", "commit of the code, with `-dirty` if it was changed; null if unknown"),
    "python": RecordField("", "version of Python"),
    **{name: RecordField("", f"version of {name}; null if it isn't installed") for name in LIBRARIES},
    "device": RecordField("", "the device that batches were made for"),
    "cpu_model": RecordField("", "name of the CPU"),
    "cores": RecordField("cores", "cores that the process may use"),
    "cpu_quota_cores": RecordField("cores", "CPU limit of the container; null if there is none"),
    "memory_bytes": RecordField("bytes", "memory of the machine"),
    "memory_limit_bytes": RecordField("bytes", "memory limit of the container; null if there is none"),
    "platform": RecordField("", "operating system and its version"),
    "in_container": RecordField("", "whether the run was in a container"),
    "latency_s": RecordField(
        "s", "round-trip time that the link of `s3-up` added on the way to the store; null without"
    ),
    "bandwidth_bits_per_s": RecordField(
        "bit/s", "bandwidth to which that link limits all connections; null if it doesn't"
    ),
    "load_average": RecordField("", "load averages over 1, 5 and 15 minutes, at the start"),
}
"""The keys of `provenance`, in order."""


def collect(started: datetime, revision: str = "", endpoint: str = "") -> dict[str, Any]:
    """Return the provenance of a run. Call it before the run, so that the load average shows other programs only.

    Args:
        started: Start of the run, in UTC.
        revision: Revision of the code; empty asks git for that of the checkout.
        endpoint: The store's address, which is asked whether it is a link's.
    """
    link = find_link(endpoint)
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
        "latency_s": link and link.latency_s,
        "bandwidth_bits_per_s": link and link.bits_per_s,
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def git_revision(checkout: Path) -> str | None:
    """Return the commit that is checked out, with `-dirty` if tracked files differ; None outside a checkout."""
    if not (checkout / ".git").exists():  # git would also search the parent folders
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the CPU's name as the kernel reports it, or its architecture."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def memory_limit_bytes(cgroup: Path) -> int | None:
    """Return a container's memory limit (`docker run --memory`; cgroup v2, memory.max); None without one."""
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
