"""Which runs a comparison starts, and what it does after failures and in noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from larder.bench.comparison import session as sessions
from larder.bench.comparison.kept import KeptRounds
from larder.bench.comparison.plan import ROOFLINES, WARM_UP, Entry, Run, plan_entries
from larder.bench.comparison.processes import JobFailure
from larder.bench.comparison.session import DataFacts, Session
from larder.bench.comparison.settings import ComparisonSettings
from larder.bench.comparison.work import Job
from larder.bench.records import read_comparison
from larder.bench.summarize import AGAIN, NOTHING
from larder.progress import NullReporter

TEMPLATE = read_comparison(Path(__file__).parents[1] / "comparison.json").rounds[0]
Answer = Callable[[Job], "dict[str, Any] | JobFailure"]
MakeSession = Callable[..., tuple[Session, list[Job]]]


def measured(job: Job, rate: float = 100.0, **fields: Any) -> dict[str, Any]:
    assert job.run is not None
    epoch = TEMPLATE.epochs[0].model_copy(update={"imgs_per_s": rate, **fields})
    entry = job.run.entry
    update = {"arm": entry.name, "workers": entry.workers, "round": job.run.round, "position": job.run.position}
    one = TEMPLATE.model_copy(update={**update, "epochs": [epoch]})
    return {"round": one.model_dump(mode="json"), "reader": "a reader", "pixel_error": None}


@pytest.fixture
def make_session(tmp_path: Path) -> MakeSession:
    """Return a session over two arms whose jobs are answered by a function, and the list of its jobs."""

    def make(answer: Answer, *flags: str) -> tuple[Session, list[Job]]:
        jobs: list[Job] = []

        class Runner:
            def run(self, function: object, job: Job, name: str) -> dict[str, Any] | JobFailure:
                jobs.append(job)
                return answer(job)

        settings = ComparisonSettings.load("compare", ["--workers=2", *flags], {})
        entries = plan_entries(["stream", "webdataset"], [2], [])
        facts = DataFacts(None, 1.0)
        return Session(settings, entries, facts, KeptRounds(tmp_path), Runner(), NullReporter()), jobs  # type: ignore[arg-type]

    return make


def names(jobs: list[Job]) -> list[str]:
    return [job.run.entry.name for job in jobs if job.run is not None]


def test_every_arm_runs_in_each_round_and_results_are_kept(make_session: MakeSession) -> None:
    session, jobs = make_session(measured)
    session.run_rounds(WARM_UP, 5)
    assert sorted(names(jobs)) == sorted(["stream", f"stream{AGAIN}", "webdataset", NOTHING] * 6)
    again, later = make_session(measured)
    again.run_rounds(WARM_UP, 5)
    assert not later, "all rounds are kept"
    assert [one.position for one in again.rounds] == [one.position for one in session.rounds]


def test_the_time_left_counts_kept_rounds_with_the_time_they_took(make_session: MakeSession) -> None:
    session, _ = make_session(measured)
    session.run_rounds(WARM_UP, 1)
    again, _ = make_session(measured)
    again.run_rounds(WARM_UP, 1)
    again._left = [Run(Entry("arm", "stream", 2), 2, 8)]
    assert again._seconds_left() >= TEMPLATE.process_s


def test_only_what_reads_the_store_does_so_from_a_distance(make_session: MakeSession) -> None:
    near, far = "http://store:9000", "http://127.0.0.1:1"
    session, _ = make_session(measured, "--s3-endpoint-url", far)
    session._facts = DataFacts(None, 1.0, Path("counters"), near)
    entries = [Entry("roofline", name, 2) for name in ROOFLINES] + [Entry("arm", "stream", 2)]
    jobs = [session._job(Run(entry, 1, 0)) for entry in entries]
    endpoints = {job.run.entry.name: job.settings.s3_endpoint_url for job in jobs if job.run}
    assert {name for name, endpoint in endpoints.items() if endpoint == far} == {"store_read", "stream"}
    assert {job.distant for job in jobs} == {Path("counters")}


def test_all_arms_measure_a_second_epoch_in_the_last_round(make_session: MakeSession) -> None:
    session, jobs = make_session(measured)
    session.run_rounds(WARM_UP, 5)
    epochs = {job.run.round: job.epochs for job in jobs if job.run is not None}
    assert epochs == {0: 1, 1: 0, 2: 0, 3: 0, 4: 0, 5: 2}


def test_an_arm_that_fails_twice_is_given_up(make_session: MakeSession) -> None:
    def answer(job: Job) -> dict[str, Any] | JobFailure:
        assert job.run is not None
        hangs = job.run.entry.name == "webdataset"
        return JobFailure("timeout", "it took longer than 5 s, and was ended") if hangs else measured(job)

    session, jobs = make_session(answer)
    session.run_rounds(WARM_UP, 5)
    assert names(jobs).count("webdataset") == 2
    assert names(jobs).count("stream") == 6
    assert [(one.arm, one.kind) for one in session.failures] == [("webdataset", "timeout")] * 2


def test_rounds_are_added_until_the_machine_is_quiet(make_session: MakeSession) -> None:
    """Both runs of the arm differ in five rounds, and then no more."""

    def answer(job: Job) -> dict[str, Any]:
        assert job.run is not None
        is_slow = job.run.round <= 5 and job.run.entry.name == f"stream{AGAIN}"
        return measured(job, 90.0 if is_slow else 100.0)

    session, _ = make_session(answer)
    session.run_rounds(WARM_UP, 5)
    added = session.add_rounds(6, seconds=1e6)
    assert 5 <= added < 20
    assert max(one.round for one in session.rounds) == 5 + added


def test_no_time_is_spent_on_more_rounds_if_there_is_none(make_session: MakeSession) -> None:
    session, _ = make_session(lambda job: measured(job, 90.0 if AGAIN in str(job.run) else 100.0))
    session.run_rounds(WARM_UP, 5)
    assert session.add_rounds(6, seconds=0) == 0


def test_a_quick_comparison_reads_what_fits_into_a_few_seconds(make_session: MakeSession) -> None:
    """The warm-up's first batch takes 1 s, and each further one 0.1 s: 20 fit into the rest."""
    epoch = {"batches": 6, "seconds": 1.5, "first_batch_s": 1.0, "batches_per_s": 6 / 1.5}
    session, jobs = make_session(lambda job: measured(job, **epoch), "--quick")
    session.run_rounds(WARM_UP, 1)
    batches = {(job.run.round, job.batches) for job in jobs if job.run is not None}
    assert batches == {(0, 6), (1, 21)}
    assert all(job.epochs == 1 for job in jobs)


def test_a_quick_comparison_keeps_its_time(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "QUICK_SECONDS", -1.0)
    session, _ = make_session(measured, "--quick")
    session.run_rounds(WARM_UP, 3)
    assert {one.round for one in session.rounds} == {0, 1}
