"""Ctrl-C while a stage still imports its modules."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(
    ".".join(file.parent.relative_to(ROOT).parts)
    for folder in ("services", "provision")
    for file in (ROOT / folder).rglob("__main__.py")
)
SLOW_IMPORT = """\
import sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "larder.stage":
            print("importing", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Slow())
"""


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_without_a_traceback(tmp_path: Path, program: str, number: signal.Signals) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT)
    started = subprocess.Popen(
        [sys.executable, "-m", program],
        cwd=ROOT,
        env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "importing\n"
    started.send_signal(number)
    _, errors = started.communicate(timeout=30)
    assert (started.returncode, errors) == (130, "")


def test_importing_the_packages_leaves_signals_alone() -> None:
    program = (
        "import signal, services, provision; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, "
        "signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    )
    assert subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True) == "True True\n"
