"""Jobs in processes of their own: results, failures, time limits."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from larder.bench.comparison.processes import JobFailure, JobRunner
from tests.conftest import Until
from tests.unit.bench.comparison import jobs


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[JobRunner]:
    with JobRunner(tmp_path, 300) as made:
        yield made


def test_each_job_has_a_process_of_its_own_and_may_print(runner: JobRunner) -> None:
    first, second = (runner.run(jobs.double, number, "job") for number in (3, 4))
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert (first["number"], second["number"]) == (6, 8)
    assert len({first["pid"], second["pid"], os.getpid()}) == 3


@pytest.mark.parametrize(
    ("function", "argument", "kind", "message", "next_step"),
    [
        (jobs.fail, "the store is down", "error", "the store is down", "try again"),
        (jobs.raise_unknown, "no handle", "error", "ValueError: no handle", "failing.log"),
        (jobs.die, jobs.KILL, "killed", "ended by SIGKILL", "set LARDER_WORKERS lower"),
        (jobs.leave, 3, "error", "ended with 3: out of handles", "failing.log"),
    ],
    ids=["an error of ours", "any exception", "killed", "exits"],
)
def test_a_failure_is_returned_and_the_next_job_runs(
    runner: JobRunner, function: object, argument: object, kind: str, message: str, next_step: str
) -> None:
    failed = runner.run(function, argument, "failing")  # type: ignore[arg-type]
    assert isinstance(failed, JobFailure)
    assert failed.kind == kind
    assert message in failed.message
    assert next_step in failed.next_step
    assert isinstance(runner.run(jobs.double, 1, "next"), dict)


@pytest.mark.parametrize("function", [jobs.hang, jobs.hang_with_a_daemon], ids=["a child", "a daemon"])
def test_a_job_that_hangs_is_ended_with_its_children(
    tmp_path: Path, until: Until, function: Callable[[Path], dict[str, Any]]
) -> None:
    with JobRunner(tmp_path, 2) as runner:
        failed = runner.run(function, tmp_path / "pids", "hanging")
        assert failed == JobFailure(
            "timeout", "it took longer than 2 s, and was ended", "set LARDER_ROUND_SECONDS higher"
        )
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        until(lambda: not any(map(runs, pids)), "both processes have ended")
        assert isinstance(runner.run(jobs.double, 1, "next"), dict)


def test_the_libraries_stay_imported_after_a_job_that_hangs(tmp_path: Path) -> None:
    with JobRunner(tmp_path, 2) as runner:
        runner.run(jobs.hang, tmp_path / "pids", "hanging")
        parents = [runner.run(jobs.tell_parent, None, "next") for _ in range(2)]
        assert runner._template is not None
        assert parents == [{"parent": runner._template.pid}] * 2
        template = (tmp_path / "pids.parent").read_text()
        assert template == str(runner._template.pid)


def test_a_job_is_ended_at_its_deadline_if_that_is_earlier(tmp_path: Path) -> None:
    with JobRunner(tmp_path, 300) as runner:
        assert isinstance(runner.run(jobs.double, 1, "first"), dict)
        failed = runner.run(jobs.hang, tmp_path / "pids", "hanging", time.monotonic() + 2)
        assert isinstance(failed, JobFailure)
        assert (failed.kind, failed.message) == ("timeout", "it took longer than 2 s, and was ended")
        assert failed.next_step == "run the whole comparison"


def test_what_a_job_leaves_behind_is_ended(runner: JobRunner, until: Until) -> None:
    left = runner.run(jobs.leave_child, None, "leaving")
    assert isinstance(left, dict)
    until(lambda: not runs(left["child"]), "the child has ended")


def test_an_interrupt_ends_the_job(tmp_path: Path, until: Until) -> None:
    file = tmp_path / "pids"

    def interrupt() -> None:
        until(file.exists, "the job runs")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt), JobRunner(tmp_path, 300) as runner:
        runner.run(jobs.hang, file, "hanging")
    thread.join()
    until(lambda: not any(runs(int(pid)) for pid in file.read_text().split()), "both processes have ended")


def test_an_interrupt_before_the_jobs_id_arrives_ends_it(
    tmp_path: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pids"
    await_answer = JobRunner._await

    def interrupt(runner: JobRunner, key: str, deadline: float) -> object:
        if key != "pid":
            return await_answer(runner, key, deadline)
        until(file.exists, "the job runs")
        raise KeyboardInterrupt

    monkeypatch.setattr(JobRunner, "_await", interrupt)
    with pytest.raises(KeyboardInterrupt), JobRunner(tmp_path, 300) as runner:
        runner.run(jobs.hang, file, "hanging")
    pids = [int(pid) for pid in file.read_text().split()]
    assert len(pids) == 2
    until(lambda: not any(map(runs, pids)), "both processes have ended")


def runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_missing_modules_are_skipped(tmp_path: Path) -> None:
    with JobRunner(tmp_path, 300, ["no.such.module", "json"]) as runner:
        assert isinstance(runner.run(jobs.double, 1, "job"), dict)


def test_the_start_doesnt_wait(tmp_path: Path) -> None:
    with JobRunner(tmp_path, 300) as runner:
        runner.start()
        runner.start()
        assert isinstance(runner.run(jobs.double, 1, "job"), dict)
