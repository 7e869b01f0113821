"""How a stage ends: exit codes, one error, a summary and the next step, on stderr; JSON lines on request."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from larder.errors import ServiceError
from larder.progress import Reporter, format_amount
from larder.settings import Settings
from larder.stage import Clock, StageOutcome, main

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("raised", "code", "event"),
    [
        (None, 0, "next"),
        (ServiceError("what", next_step="next"), 5, "error"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "full"), 3, "error"),
    ],
    ids=["done", "error", "interrupted", "full disk"],
)
def test_ends(raised: BaseException | None, code: int, event: str, capsys: pytest.CaptureFixture[str]) -> None:
    def work(_: Settings, reporter: Reporter) -> StageOutcome:
        with reporter.task("a", 10, "B") as task:
            task.advance(3)
            if raised is not None:
                raise raised
        return StageOutcome("all is well", "the next", {"files": 1})

    assert main("example", Settings, work, "", ["--log=json"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err.splitlines()[-1])["event"] == event


FAILS = """
import math, threading
from larder.engines.local import LocalEngine
from larder.errors import ServiceError
from larder.settings import Settings
from larder.stage import main

def work(settings, reporter):
    threading.Thread(target=threading.Event().wait).start()
    with LocalEngine(2, 0)(math.sqrt, [1.0, 4.0]) as roots:
        print(*roots)
        raise ServiceError("what", next_step="next")

main("example", Settings, work, "")
"""


def test_a_failure_waits_for_no_thread_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """With workers, and a disk that takes no output."""
    with Path("/dev/full").open("w") as full:
        command, env = [sys.executable, "-c", FAILS], {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
        ended = subprocess.run(
            command, cwd=ROOT, env=env, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert (ended.returncode, ended.stderr) == (5, "example: error: what\n  next step: next\n")
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_ours_is_not_hidden() -> None:
    def work(_: Settings, __: Reporter) -> StageOutcome:
        raise OSError(errno.EBADF, "ours")

    with pytest.raises(OSError, match="ours"):
        main("example", Settings, work, "", [])


def test_record_has_no_secret_of_the_environment() -> None:
    assert {"started_at", "seconds", "host", "larder", "mine"} <= Clock().record(mine=1).keys()


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (1234, "files", "1,234 files"),
        (1, "files", "1 file"),
        (1, "batches", "1 batch"),
        (12, "B", "12 B"),
        (1536, "B", "1.5 KiB"),
        (2**51, "B", "2048.0 TiB"),
    ],
)
def test_amount(number: int, unit: str, text: str) -> None:
    assert format_amount(number, unit) == text
