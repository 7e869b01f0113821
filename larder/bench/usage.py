"""Measure CPU time and memory of this process and its descendants."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from time import thread_time
from typing import Literal, Self

import psutil

from larder.bench.sampler import Sampler

SAMPLE_INTERVAL_SECONDS = 0.5
GROWTH = 1.01
_LISTS_CHILDREN = Path("/proc/thread-self/children").exists()


def cpu_seconds() -> float:
    """Return user and system time so far of this process and all its descendants, including those that have ended.

    When a child is reaped, its time moves from the running processes to its parent's total of ended children. So the
    difference of two calls includes children that end in between. The kernel counts in ticks of 10 ms.
    """
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system + sum(map(_cpu_of, descendants()))


def _cpu_of(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def descendants() -> list[psutil.Process]:
    """Return all processes below this one.

    The kernel lists each thread's children. psutil would read the parents of all processes of the machine, which takes
    milliseconds.
    """
    if not _LISTS_CHILDREN:
        return list(psutil.Process().children(recursive=True))
    found: list[psutil.Process] = []
    left = [os.getpid()]
    while left:
        for child in _children_of(left.pop()):
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(child))
                left.append(child)
    return found


def _children_of(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):  # the process has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):  # the thread has ended
                children += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split())
    return children


class PeakMemory(Sampler):
    """Sample the memory of this process and its descendants, and keep the highest sum.

    The sum is over proportional set sizes (PSS), which divide a page shared by n processes among them. Resident set
    sizes (RSS) would count pages that forked workers share once per worker; they are used only if the system has no
    PSS.

    A process that was forked from one with imported libraries shares them with it. They belong to the client, which
    would import them itself. So the part of `forked_from` in what it shares is added to the sum. It is read once, at
    the start, since it takes as long to read as the other PSS; pages that are changed later count twice.

    Reading a PSS takes the kernel 5 to 15 ms of CPU per process, which would slow the loader by some percent if done at
    every sample; an RSS takes 0.03 ms. So each sample reads RSS, and PSS only if the sum of RSS has grown.

    Args:
        interval_seconds: Time between samples.
        growth: Factor by which the sum of RSS must have grown for PSS to be read.
        forked_from: Id of the process that this one was forked from and shares libraries with, if it counts.
    """

    def __init__(
        self,
        interval_seconds: float = SAMPLE_INTERVAL_SECONDS,
        growth: float = GROWTH,
        forked_from: int | None = None,
    ) -> None:
        super().__init__(interval_seconds)
        self._growth, self._forked_from, self._shared_bytes = growth, forked_from, 0
        self.peak_bytes = 0
        self.kind: Literal["pss", "rss"] = "pss"
        self._highest_resident = 0

    def __enter__(self) -> Self:
        begin = thread_time()
        with suppress(psutil.AccessDenied, AttributeError):  # the first sample finds out
            self._shared_bytes = _shared_bytes(self._forked_from)
        seconds = thread_time() - begin
        super().__enter__()
        self.own_cpu_seconds += seconds
        return self

    def _sample(self) -> None:
        processes = [psutil.Process(), *descendants()]
        resident = sum(map(_resident_bytes, processes))
        if resident > self._highest_resident * self._growth:
            self._highest_resident = resident
            self.peak_bytes = max(self.peak_bytes, self._proportional_bytes(processes) or resident)

    def _proportional_bytes(self, processes: list[psutil.Process]) -> int | None:
        """Return the sum of proportional set sizes; None, from then on, if the system doesn't provide them."""
        if self.kind == "pss":
            try:
                return sum(map(_proportional_bytes, processes)) + self._shared_bytes
            except (psutil.AccessDenied, AttributeError):  # another system, or a kernel without smaps
                self.kind, self.peak_bytes = "rss", 0
        return None


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _proportional_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


def _shared_bytes(pid: int | None) -> int:
    """Return a process's part of the pages that it shares with others."""
    if pid is None:
        return 0
    try:
        memory = psutil.Process(pid).memory_full_info()
    except psutil.NoSuchProcess:
        return 0
    return int(memory.pss - memory.uss)
