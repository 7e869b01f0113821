"""Which Python runs an arm's jobs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from larder.bench import arms, peer_environments
from larder.bench.comparison.plan import Entry, Run
from larder.bench.comparison.processes import JobFailure
from larder.bench.comparison.runners import PeerRunner
from larder.bench.comparison.settings import ComparisonSettings
from larder.bench.comparison.work import Job
from tests.unit.bench.comparison import jobs

ROOT = Path(__file__).parents[4]


def job(arm: str, folder: Path) -> Job:
    settings = ComparisonSettings.load("compare", [], {})
    return Job("arm", Run(Entry("arm", arm, 1), 1, 1), settings, folder, None)


def test_an_arm_with_an_environment_runs_there_and_the_others_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nTEST_PYTHON_OF=mosaicml PYTHONPATH="$PYTHONPATH:{ROOT}" exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr(arms, "_installed_version", lambda distribution: "")
    monkeypatch.setattr(peer_environments, "python_of", lambda name: python)
    with PeerRunner(tmp_path, 300) as runner:
        there = [runner.run(jobs.tell_python, job(arm, tmp_path), "job") for arm in ("mosaicml", "mosaicml (again)")]
        here = runner.run(jobs.tell_python, job("stream", tmp_path), "job")
    assert there == [{"python": "mosaicml", "path": f":{ROOT}"}] * 2
    assert isinstance(here, dict)
    assert here["python"] == "ours"


@pytest.mark.parametrize(
    "script", ["#!/bin/sh\necho no module named encodings >&2\nexit 1\n", None], ids=["ends", "none"]
)
def test_an_environment_that_doesnt_run_fails_its_arm_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    python = tmp_path / "python"
    if script:
        python.write_text(script)
        python.chmod(0o755)
    monkeypatch.setattr(arms, "_installed_version", lambda distribution: "")
    monkeypatch.setattr(peer_environments, "python_of", lambda name: python)
    with PeerRunner(tmp_path, 300) as runner:
        failed = runner.run(jobs.tell_python, job("mosaicml", tmp_path), "job")
        assert isinstance(runner.run(jobs.tell_python, job("stream", tmp_path), "job"), dict)
    assert isinstance(failed, JobFailure)
    assert ("no module named encodings" if script else "No such file") in failed.message
    assert "mosaicml" in failed.next_step
