import subprocess
import sys
import time

import psutil
import pytest

from larder.bench.usage import PeakMemory, cpu_seconds

BURN = "import time\nwhile time.process_time() < {0}: pass\nprint(time.process_time(), flush=True)\n"
HOLD = "held = bytearray(60_000_000)\nheld[::4096] = b'x' * len(held[::4096])\nprint('ready', flush=True)\ninput()\n"


@pytest.mark.parametrize("ends", [False, True], ids=["child-still-runs", "child-ended-inside"])
def test_cpu_seconds_of_children(ends):
    before = cpu_seconds()
    own = time.process_time()
    wait = "" if ends else "input()"
    command = [sys.executable, "-S", "-c", BURN.format(0.4) + wait]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        burnt = float(child.stdout.readline())
        if ends:
            child.wait()
        seen = cpu_seconds() - before
        expected = burnt + time.process_time() - own
        child.stdin.close()
    assert seen == pytest.approx(expected, abs=0.06)  # ticks of 10 ms, each process's user and system


def test_peak_memory_has_the_children_s(until):
    with PeakMemory(0.01) as alone:
        pass
    with (
        subprocess.Popen([sys.executable, "-S", "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
        PeakMemory(0.01) as both,
    ):
        child.stdout.readline()
        until(lambda: both.peak_bytes - alone.peak_bytes > 60e6, "the child's memory is seen")
        child.stdin.close()
    assert both.peak_bytes - alone.peak_bytes < 90e6
    assert both.own_cpu_seconds > 0


def test_resident_set_size_where_there_is_no_other(monkeypatch):
    def refuse(self):
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "memory_full_info", refuse)
    with PeakMemory() as memory:
        pass
    assert memory.kind == "rss"
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]  # other tests may have left servers
    assert memory.peak_bytes == pytest.approx(sum(one.memory_info().rss for one in family), rel=0.2)
