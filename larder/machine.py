"""Query the machine or container for CPU cores and its boot id, and end child processes with their parent."""

from __future__ import annotations

import ctypes
import math
import os
import signal
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PRCTL = getattr(ctypes.CDLL(None), "prctl", None)  # looked up before any fork: after one, a lock may stay held forever
_MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)


def release_free_memory() -> None:
    """Give memory that was freed back to the system. C's malloc keeps it, and so adds to a process's peak."""
    if _MALLOC_TRIM is not None:  # glibc
        _MALLOC_TRIM(0)


def available_cpus(cgroup: Path = CGROUP) -> int:
    """Return the number of CPU cores that this process may use, limited by its affinity and the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota_cores(cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota_cores(cgroup: Path = CGROUP) -> float | None:
    """Return a container's CPU quota in cores (`docker run --cpus`; cgroup v2, cpu.max), or None without a limit."""
    try:
        quota, _, period = (cgroup / "cpu.max").read_text().strip().partition(" ")
    except OSError:
        return None
    return round(int(quota) / int(period), 3) if quota.isdigit() and period.isdigit() else None


def boot_id() -> str:
    """Return an id of the machine's current boot. Data that weren't flushed to disk may not survive a reboot."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


def set_parent_death_signal(death_signal: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent dies, even by SIGKILL. Call it as a `preexec_fn`."""
    if _PRCTL is not None:  # Linux
        _PRCTL(_PR_SET_PDEATHSIG, death_signal)
