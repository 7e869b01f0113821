"""What the machine or the container gives: cores, the identity of its boot, children that end with their parent."""

from __future__ import annotations

import ctypes
import math
import os
import signal
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PRCTL = getattr(ctypes.CDLL(None), "prctl", None)  # looked up here: after a fork, locks may be held for good


def available_cpus(cgroup: Path = CGROUP) -> int:
    """The number of CPU cores that this process may use: a container's share, not the machine's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota_cores(cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota_cores(cgroup: Path = CGROUP) -> float | None:
    """How many cores' time a container may use (`docker run --cpus`), or None without a limit (cgroup v2, cpu.max)."""
    try:
        quota, _, period = (cgroup / "cpu.max").read_text().strip().partition(" ")
    except OSError:
        return None
    return round(int(quota) / int(period), 3) if quota.isdigit() and period.isdigit() else None


def boot_id() -> str:
    """What tells one boot of this machine from the next: what was not flushed before may be gone after."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


def end_with_parent(how: signal.Signals = signal.SIGTERM) -> None:
    """In a child, before its program starts: have the kernel send it a signal when the parent dies, even by SIGKILL."""
    if _PRCTL is not None:  # Linux
        _PRCTL(_PR_SET_PDEATHSIG, how)
