"""CPU time and memory of this process and its children."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from larder.bench.usage import PeakMemory, descendants
from tests.conftest import Until

CPU_SECONDS = """
import subprocess, sys, time
from larder.bench.usage import cpu_seconds

ends = sys.argv[1] == "ends"
burn = "import time\\nwhile time.process_time() < 0.4: pass\\nprint(time.process_time(), flush=True)"
before, own = cpu_seconds(), time.process_time()
command = [sys.executable, "-S", "-c", burn if ends else f"{burn}\\ninput()"]
with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
    burnt = float(child.stdout.readline())
    if ends:
        child.wait()
    print(cpu_seconds() - before, burnt + time.process_time() - own)
    child.stdin.close()
"""
HOLD = "held = bytearray(60_000_000)\nheld[::4096] = b'x' * len(held[::4096])\nprint('ready', flush=True)\ninput()\n"


FORK = """
import os, sys
from larder.bench.usage import PeakMemory

held = bytearray(200_000_000)
held[::4096] = b"x" * len(held[::4096])
for parent in (None, os.getpid()):
    if os.fork() == 0:
        with PeakMemory(0.01, forked_from=parent) as memory:
            pass
        print(memory.peak_bytes, flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize("child", ["still-runs", "ends"])
def test_cpu_seconds_of_children(child: str) -> None:
    # In a process of its own: the servers of other tests are children of this one.
    done = subprocess.run([sys.executable, "-c", CPU_SECONDS, child], capture_output=True, text=True, check=True)
    measured, burnt = map(float, done.stdout.split())
    assert measured == pytest.approx(burnt, abs=0.1)  # ticks of 10 ms, and the child's start and end


def test_peak_memory_has_the_children_s(until: Until) -> None:
    with PeakMemory(0.01) as alone:
        pass
    with (
        subprocess.Popen([sys.executable, "-S", "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
        PeakMemory(0.01) as both,
    ):
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        until(lambda: both.peak_bytes - alone.peak_bytes > 60e6, "the child's memory is seen")
        child.stdin.close()
    assert both.peak_bytes - alone.peak_bytes < 90e6
    assert both.own_cpu_seconds > 0


def test_what_a_fork_shares_with_its_parent_counts_once() -> None:
    """Half of the shared 200 MB, and of the libraries, are the parent's."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True)
    without, complete = map(int, done.stdout.split())
    assert without < 160e6
    assert 200e6 < complete < 260e6


def test_descendants_are_those_that_psutil_finds() -> None:
    command = [sys.executable, "-S", "-c", "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', "]
    command[-1] += "'print(0, flush=True); input()'])"
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        family = {one.pid for one in psutil.Process(child.pid).children(recursive=True)} | {child.pid}
        assert len(family) == 2
        assert family <= {one.pid for one in descendants()}
        child.stdin.close()
    assert not family & {one.pid for one in descendants()}


def test_resident_set_size_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self) -> None:
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "memory_full_info", refuse)
    with PeakMemory() as memory:
        pass
    assert memory.kind == "rss"
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]  # other tests may have left servers
    assert memory.peak_bytes == pytest.approx(sum(one.memory_info().rss for one in family), rel=0.2)
