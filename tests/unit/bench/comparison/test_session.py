"""Which runs a comparison starts, and what it does after failures and in noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from larder.bench.arms import arm_names
from larder.bench.comparison.kept import KeptRounds
from larder.bench.comparison.plan import ROOFLINES, WARM_UP, Entry, Run, plan_entries, plan_round
from larder.bench.comparison.processes import JobFailure
from larder.bench.comparison.session import DataFacts, Means, Session
from larder.bench.comparison.settings import ComparisonSettings
from larder.bench.comparison.time_budget import CLOSING_SECONDS, QUICK_SECONDS, TimeBudget, by_importance
from larder.bench.comparison.work import Job
from larder.bench.comparison_record import read_comparison
from larder.bench.summarize import AGAIN, NOTHING
from larder.progress import NullReporter, Reporter

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
            def run(
                self, function: object, job: Job, name: str, deadline: float, watch: object
            ) -> dict[str, Any] | JobFailure:
                jobs.append(job)
                return answer(job)

        settings = ComparisonSettings.load("compare", ["--workers=2", *flags], {})
        entries = plan_entries(["stream", "webdataset"], [2], [])
        facts = DataFacts(None, 1.0)
        means = Means(settings, KeptRounds(tmp_path), Runner(), NullReporter(), TimeBudget())  # type: ignore[arg-type]
        return Session(means, entries, facts), jobs

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


def test_a_resumed_comparison_shows_only_what_is_new(
    make_session: MakeSession, capsys: pytest.CaptureFixture[str]
) -> None:
    session, _ = make_session(measured)
    session.run_rounds(WARM_UP, 1)
    again, _ = make_session(measured)
    again._reporter = Reporter("compare", "line")
    again.run_rounds(WARM_UP, 2)
    lines = [line for line in capsys.readouterr().err.splitlines() if " of 12 runs" in line]
    assert len(lines) == 4
    assert all(line.startswith("compare: round 2, ") for line in lines)


def test_after_the_warm_up_the_time_of_the_rounds_is_known(
    make_session: MakeSession, capsys: pytest.CaptureFixture[str]
) -> None:
    session, _ = make_session(measured)
    session._reporter = Reporter("compare", "line")
    session.run_rounds(WARM_UP, 5)
    [line] = [line for line in capsys.readouterr().err.splitlines() if "by its times" in line]
    assert line == "compare: the warm-up is over; by its times, the rounds take about 0 s"


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


class Clock:
    """A monotonic clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


QuickSession = Callable[..., tuple[Session, Clock]]


@pytest.fixture
def quick_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QuickSession:
    """Return a quick session whose runs take seconds of a clock of its own; they are ended at their deadlines."""

    def make(arms: list[str], counts: list[int], seconds: Callable[[Job], float]) -> tuple[Session, Clock]:
        clock = Clock()
        monkeypatch.setattr("time.monotonic", clock)

        class Runner:
            def run(
                self, function: object, job: Job, name: str, deadline: float, watch: object
            ) -> dict[str, Any] | JobFailure:
                ended = clock.now + seconds(job)
                clock.now = min(ended, deadline)
                if ended > deadline:
                    return JobFailure("timeout", "it took longer")
                assert job.run is not None
                bound = {"imgs_per_s": 9.0, "bytes_per_s": None, "threads": job.run.entry.workers}
                return bound if job.kind == "roofline" else measured(job, batches=6, seconds=1.0, first_batch_s=0.5)

        settings = ComparisonSettings.load("compare", ["--quick"], {})
        budget = TimeBudget.of_comparison(quick=True)
        entries = plan_entries(arms, counts, list(ROOFLINES))
        means = Means(settings, KeptRounds(tmp_path), Runner(), NullReporter(), budget)  # type: ignore[arg-type]
        session = Session(means, entries, DataFacts(None, 1.0))
        return session, clock

    return make


def hangs(name: str) -> Callable[[Job], float]:
    return lambda job: 1e9 if job.run is not None and job.run.entry.name == name else 3.0


@pytest.mark.parametrize(
    ("counts", "seconds", "has_answer"),
    [
        ([2], lambda job: 4.0, True),
        ([2], lambda job: 20.0, True),
        ([2], lambda job: 1e9, False),
        ([2], hangs("webdataset"), True),
        ([2], hangs("decode"), True),
        ([1, 2, 4, 8], lambda job: 4.0, True),
    ],
    ids=["all arms", "slow machine", "everything hangs", "an arm hangs", "an upper bound hangs", "sweep"],
)
def test_a_quick_comparison_answers_within_three_minutes(
    quick_session: QuickSession, counts: list[int], seconds: Callable[[Job], float], has_answer: bool
) -> None:
    session, clock = quick_session(arm_names(), counts, seconds)
    began = clock.now
    session.run_rounds(WARM_UP, 3)
    assert clock.now - began <= QUICK_SECONDS - CLOSING_SECONDS
    measured_arms = {one.arm for one in session.rounds if one.round == 1}
    assert ("stream" in measured_arms) == has_answer
    missing = set(arm_names()) - measured_arms - {one.arm for one in session.failures}
    named = " ".join(session.left_out_for_time())
    assert all(f"{name} with " in named for name in missing)


OWN_LAYOUTS = {"stream", "litdata_streaming", "remote_one_sample", "imagefolder_local", "imagefolder_rclone_mount"}
"""One arm for each layout that larder's own stages make."""


def test_a_quick_comparison_of_a_slow_store_covers_the_layouts_first(quick_session: QuickSession) -> None:
    """Each warm-up takes 15 s: there is time for six of them."""
    session, _ = quick_session(arm_names(), [2], lambda job: 15.0 if job.run and job.run.round == WARM_UP else 6.0)
    session.run_rounds(WARM_UP, 3)
    warm = [one.arm for one in session.rounds if one.round == WARM_UP]
    assert warm[0] == "stream"
    assert set(warm) >= OWN_LAYOUTS
    assert {one.arm for one in session.rounds if one.round == 1} >= OWN_LAYOUTS


def test_a_layout_that_only_another_library_reads_comes_before_the_second_run_of_an_arm() -> None:
    arms = ["stream", "webdataset", "litdata_raw", "spdl"]
    entries = plan_entries(arms, [2], list(ROOFLINES))
    order = [run.entry.name for run in by_importance(plan_round(entries, 1, seed=0)) if run.entry.kind == "arm"]
    assert order[0] == "stream"
    assert set(order[:3]) == {"stream", "litdata_raw", "spdl"}
    assert order[3] == "webdataset"
    assert set(order[4:]) == {f"stream{AGAIN}", NOTHING}


def test_the_second_run_of_an_arm_needs_no_warm_up_of_its_own_if_time_is_short(quick_session: QuickSession) -> None:
    session, _ = quick_session(["stream", "webdataset"], [2], lambda job: 4.0)
    session.run_rounds(WARM_UP, 3)
    again = [one.round for one in session.rounds if one.arm == f"stream{AGAIN}"]
    assert again == [1, 2, 3]


def test_a_quick_comparison_drops_whole_rounds_and_says_so(quick_session: QuickSession) -> None:
    """The warm-up of 5 arms takes 45 s, the first round with 5 upper bounds 90 s: a second one doesn't fit."""
    session, _ = quick_session(["stream", "webdataset", "spdl"], [2], lambda job: 9.0)
    session.run_rounds(WARM_UP, 3)
    assert {one.round for one in session.rounds} == {0, 1}
    assert len([one for one in session.rounds if one.round == 1]) == 5
    assert session.left_out_for_time() == ["2 of 3 rounds"]


def test_a_quick_comparison_with_enough_time_leaves_nothing_out(quick_session: QuickSession) -> None:
    session, _ = quick_session(["stream", "webdataset"], [2], lambda job: 4.0)
    session.run_rounds(WARM_UP, 3)
    assert {one.round for one in session.rounds} == {0, 1, 2, 3}
    assert session.left_out_for_time() == []


def test_passes_of_a_quick_comparison_are_shortened_to_fit(quick_session: QuickSession) -> None:
    session, _ = quick_session(arm_names(), [2], lambda job: 4.0)
    session.run_rounds(WARM_UP, 1)
    assert session._pass_seconds < 3.0
    assert any(phrase.startswith("a part of each pass") for phrase in session.left_out_for_time())


def test_an_arm_that_hangs_hangs_once_if_time_is_short(quick_session: QuickSession) -> None:
    session, _ = quick_session(["stream", "webdataset", "spdl"], [2], hangs("spdl"))
    session.run_rounds(WARM_UP, 3)
    assert [(one.arm, one.kind) for one in session.failures] == [("spdl", "timeout")]
    assert "stream" in {one.arm for one in session.rounds if one.round == 3}
