"""Run a target's inputs in a child process, and report forbidden effects."""

from __future__ import annotations

import importlib
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from larder.errors import LarderError

MAX_BYTES = 300 * 10**6
_MAX_SECONDS = 30
_MAX_ADDRESSES = 4 << 30  # so that what takes all memory ends in MemoryError, and not in another process's death
_BATCH = 2000

Target = Callable[[random.Random, Path], None]


class Finding(NamedTuple):
    """An input with a forbidden effect."""

    seed: int
    what: str


def fuzz(target: str, seed: int, count: int, seconds: float) -> tuple[int, list[Finding]]:
    """Run inputs with seeds from `seed` on, until `count` inputs have run or `seconds` are over.

    Returns the number of inputs and the findings, which are also printed.
    """
    end, done = time.monotonic() + seconds, 0
    findings: list[Finding] = []
    while done < count and time.monotonic() < end:
        ran, found = _batch(target, seed + done, min(_BATCH, count - done), end - time.monotonic())
        for finding in found:
            print(f"--- {target}, seed {finding.seed}\n{finding.what}", flush=True)
        done, findings = done + ran, findings + found
    return done, findings


def _batch(target: str, seed: int, count: int, seconds: float) -> tuple[int, list[Finding]]:
    words = [sys.executable, "-m", "tests.fuzz.harness", target, str(seed), str(count), str(seconds)]
    child = subprocess.run(words, capture_output=True, text=True)
    ran, findings = 0, []
    for line in child.stdout.splitlines():
        event = json.loads(line)
        if "what" in event:
            findings.append(Finding(event["seed"], event["what"]))
        else:
            ran = event["seed"] - seed + 1  # it is told before it is run
    if child.returncode:
        findings.append(Finding(seed + ran - 1, f"the process ended with {child.returncode}\n{child.stderr[-2000:]}"))
    return max(ran, 1), findings


def load(target: str) -> Target:
    """Import a target by the module and the name of its function."""
    module, _, name = target.partition(":")
    loaded: Target = getattr(importlib.import_module(module), name)
    return loaded


def _child(target: str, seed: int, count: int, seconds: float) -> None:
    run = load(target)
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_ADDRESSES, _MAX_ADDRESSES))
    signal.signal(signal.SIGALRM, _too_long)
    end = time.monotonic() + seconds
    for number in range(seed, seed + count):
        if time.monotonic() > end:
            return
        print(json.dumps({"seed": number}), flush=True)
        if (what := run_one(run, number)) is not None:
            print(json.dumps({"seed": number, "what": what}), flush=True)


def run_one(target: Target, seed: int) -> str | None:
    """Run one input. Returns what is wrong, or None."""
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak: proc(5)
    before = _peak_bytes()
    signal.alarm(_MAX_SECONDS)
    try:
        with tempfile.TemporaryDirectory(prefix="larder-fuzz-") as folder:
            target(random.Random(seed), Path(folder))
    except LarderError as error:
        shown = f"{error.what}\n{error.next_step}"
        if len(shown.splitlines()) > 3 or not shown.replace("\n", "").isprintable():
            return f"the message is not fit for a terminal: {shown!r}"
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    peak = _peak_bytes() - before
    return f"it took {peak / 1e6:.0f} MB" if peak > MAX_BYTES else None


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def _too_long(*_: object) -> None:
    raise TimeoutError(f"it took more than {_MAX_SECONDS} s")


if __name__ == "__main__":
    _child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
