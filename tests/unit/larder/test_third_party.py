"""Warnings of libraries, in this process and in workers, among JSON lines."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from larder.progress import Reporter
from larder.third_party import current_warning_reporter, report_warnings

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import io, logging, multiprocessing, sys, warnings
from PIL import Image
from larder.engines.local import LocalEngine
from larder.images import open_image
from larder.loaders.failures import make_worker_init
from larder.progress import Reporter
from larder.third_party import report_warnings

def work(start=None):
    if start is not None:
        start(0)
    file = io.BytesIO()
    Image.new("P", (9, 9)).save(file, "PNG", transparency=bytes(9))
    with open_image(file) as image:
        image.convert("RGB")  # warns of it
    warnings.warn("odd\\n  things", stacklevel=1)
    logging.getLogger("some.library").warning("slow %s", "store")
    logging.getLogger("some.library").info("all is well")

def task(number):
    work()

if __name__ == "__main__":
    from script import task  # as workers import it
    with report_warnings(Reporter("bench", sys.argv[1])):
        work()
        with LocalEngine(2, 0)(task, [1]) as results:
            list(results)
        for method in ("fork", "forkserver", "spawn"):
            process = multiprocessing.get_context(method).Process(target=work, args=(make_worker_init(),))
            process.start()
            process.join()
"""
SAID = [("warning: odd things (UserWarning)", "UserWarning"), ("warning: slow store (some.library)", "some.library")]


def run(tmp_path: Path, style: str) -> list[str]:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), style],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return done.stderr.splitlines()


def test_json_lines_alone(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in run(tmp_path, "json")]
    assert [(line["message"], line["source"]) for line in lines] == SAID * 5
    assert {(line["stage"], line["event"]) for line in lines} == {("bench", "warning")}


def test_lines_of_the_stage(tmp_path: Path) -> None:
    assert run(tmp_path, "line") == [f"bench: {message}" for message, _ in SAID] * 5


def test_a_program_that_is_no_stage_keeps_its_own_warnings() -> None:
    before = warnings.showwarning, list(warnings.filters), logging.lastResort, list(sys.warnoptions)
    assert current_warning_reporter() is None
    with pytest.raises(KeyError), report_warnings(Reporter("bench", "json")):
        assert current_warning_reporter() == ("bench", "json")
        raise KeyError
    assert current_warning_reporter() is None
    assert (warnings.showwarning, list(warnings.filters), logging.lastResort, list(sys.warnoptions)) == before
