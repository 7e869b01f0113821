"""Run the rounds of a comparison, and collect their results."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from larder.bench.arms import ARMS
from larder.bench.comparison.describe import describe_arm
from larder.bench.comparison.images import ImageSource
from larder.bench.comparison.job_progress import JobWatch
from larder.bench.comparison.kept import KeptRounds
from larder.bench.comparison.plan import QUICK_ROOFLINE_ROUNDS, WARM_UP, Entry, Run, plan_round
from larder.bench.comparison.processes import JobFailure, JobRunner
from larder.bench.comparison.settings import ComparisonSettings
from larder.bench.comparison.time_budget import PASS_SECONDS, RUN_SECONDS, TimeBudget, by_importance, pass_seconds
from larder.bench.comparison.work import Job, do
from larder.bench.comparison_parts import Arm, EpochRecord, PixelError, Roofline, Round
from larder.bench.comparison_record import Failure
from larder.bench.statistics import median_interval
from larder.bench.summarize import AGAIN, NOTHING, repeated_arm
from larder.progress import Reporter

MAX_FAILURES = 2
"""An arm that has failed so often isn't run again."""
_QUICK_WARM_UP_BATCHES = 6
_MIN_BATCHES = 3
_GUESS_SECONDS = 15.0


class DataFacts(NamedTuple):
    """What rounds must know of the data."""

    source: ImageSource | None
    bytes_per_img: float
    counters: Path | None = None
    """Counters of the proxy that makes the store distant."""
    store: str = ""
    """Address of the store itself behind that proxy."""


class Means(NamedTuple):
    """What a comparison runs with."""

    settings: ComparisonSettings
    kept: KeptRounds
    """Completed rounds of this comparison."""
    runner: JobRunner
    reporter: Reporter
    budget: TimeBudget


class Session:
    """Runs rounds, and holds their results.

    Args:
        means: What it runs with.
        entries: What each round consists of.
        facts: What rounds must know of the data.
    """

    def __init__(self, means: Means, entries: Sequence[Entry], facts: DataFacts) -> None:
        self._settings, self._kept, self._runner, self._reporter, self._budget = means
        self._entries, self._facts = entries, facts
        self.rounds: list[Round] = []
        self.failures: list[Failure] = []
        self.next_steps: list[str] = []
        """What helps against each failure."""
        self.kept_seconds = 0.0
        self._bounds: dict[Entry, list[dict[str, Any]]] = {}
        self._arms: dict[str, tuple[str, PixelError | None]] = {}
        self._seconds: dict[Entry, float] = {}
        self._left: list[Run] = []
        self._cold: set[Entry] = set()
        """Arms that there was no time to warm up."""
        self._pass_seconds = PASS_SECONDS

    def run_rounds(self, first: int, last: int) -> None:
        """Run the rounds from `first` to `last`, or as many of them as the time allows."""
        rounds = [self._plan(number) for number in range(first, last + 1)]
        self._left = [run for planned in rounds for run in planned]
        total = len(self._left)
        for planned in rounds:
            if not self._round_fits(planned):
                return
            for run in planned:
                self._left.pop(0)
                if self._has_time(run) and not self._is_given_up(run.entry):
                    self._run_and_report(run, total - len(self._left), total)
            if planned[0].round == WARM_UP and not self._budget.is_limited:
                left = _duration(self._seconds_left())
                self._reporter.event("estimate", f"the warm-up is over; by its times, the rounds take about {left}")

    def _run_and_report(self, run: Run, done: int, total: int) -> None:
        began, kept_before = time.monotonic(), self.kept_seconds
        shown = self._run(run)
        seconds = time.monotonic() - began + self.kept_seconds - kept_before
        self._seconds[run.entry] = max(seconds, self._seconds.get(run.entry, 0.0))
        if not shown:
            return
        left = self._seconds_left()
        self._reporter.event(
            "round",
            f"{_describe(run)}: {shown} ({done:,} of {total:,} runs, about {_duration(left)} left)",
            done=done,
            total=total,
            seconds_left=round(left),
        )

    def _plan(self, number: int) -> list[Run]:
        """Return the runs of a round. In a quick comparison, what matters most comes first."""
        if not self._settings.quick:
            return plan_round(self._entries, number, self._settings.seed)
        planned = plan_round(self._entries, number, self._settings.seed, QUICK_ROOFLINE_ROUNDS)
        if number == WARM_UP:  # the second run of the A/A arm has the warm-up of the first
            planned = [run for run in planned if not run.entry.name.endswith(AGAIN)]
        if number <= WARM_UP + 1:
            planned = by_importance(planned)
        return sorted(planned, key=lambda run: run.entry.kind == "roofline")

    def _round_fits(self, planned: Sequence[Run]) -> bool:
        """Return whether there is time for a round. The first one is always tried, with passes that fit."""
        number = planned[0].round
        if not self._budget.is_limited or number == WARM_UP:
            return True
        running = [run.entry for run in planned if not self._is_given_up(run.entry) and run.entry not in self._cold]
        if number == WARM_UP + 1:
            overheads = [self._overhead_of(entry) for entry in running if entry.kind == "arm"]
            bounds = sum(entry.kind == "roofline" for entry in running)
            self._pass_seconds = pass_seconds(self._budget.left(), overheads, bounds)
            return True
        return sum(self._seconds.get(entry, 0.0) for entry in running) < self._budget.left()

    def _overhead_of(self, entry: Entry) -> float:
        """Return what a run of an arm takes beside its pass, by its warm-up."""
        epoch = self._warm_up_of(entry)
        entry = entry._replace(name=entry.name.removesuffix(AGAIN))
        return max(self._seconds.get(entry, _GUESS_SECONDS) - (epoch.seconds if epoch else 0.0), 0.0)

    def _has_time(self, run: Run) -> bool:
        """Return whether a run may start. What is left out for lack of time isn't run in later rounds either."""
        if run.entry in self._cold:
            return False
        if run.round == WARM_UP and not self._budget.allows_warm_up():
            self._cold.add(run.entry)
            return False
        needs = self._seconds.get(run.entry, 0.0) if run.round > WARM_UP + 1 else 0.0
        return self._budget.left() > needs

    def left_out_for_time(self) -> list[str]:
        """Return what a quick comparison left out to keep its time, a phrase each."""
        if not self._budget.is_limited:
            return []
        done = {(one.arm, one.workers) for one in self.rounds if one.round > WARM_UP}
        done |= {(entry.name, entry.workers) for entry in self._bounds}
        done |= {(one.arm, one.workers) for one in self.failures}
        missing = [_describe_entry(entry) for entry in self._entries if (entry.name, entry.workers) not in done]
        complete = max((one.round for one in self.rounds), default=WARM_UP)
        planned = self._settings.measured_rounds
        if complete < planned:
            missing.append(f"{planned - complete} of {planned} rounds")
        if self._pass_seconds < PASS_SECONDS:
            missing.append(f"a part of each pass, which took {self._pass_seconds:.1f} s in place of {PASS_SECONDS:g} s")
        return missing

    def add_rounds(self, first: int, seconds: float) -> int:
        """Add rounds while the machine is noisy and time is left. Return their number."""
        began, added = time.monotonic(), 0
        while (repeated := repeated_arm(self.rounds)) is not None and repeated.verdict == "noisy":
            needs = sum(self._seconds.get(entry, _GUESS_SECONDS) for entry in self._entries if entry.kind == "arm")
            if time.monotonic() - began + needs > seconds:
                break
            self._reporter.event(
                "noisy",
                f"the machine is noisy: {repeated.arm} twice gave ratios from {repeated.ratio.low:.2f} to "
                f"{repeated.ratio.high:.2f}; adding round {first + added}",
            )
            self.run_rounds(first + added, first + added)
            added += 1
        return added

    def arms(self) -> list[Arm]:
        """Describe the arms that ran."""
        return [describe_arm(name, reader, error) for name, (reader, error) in self._arms.items()]

    def rooflines(self, about: dict[str, str]) -> list[Roofline]:
        """Return the upper bounds."""
        found = []
        for entry, results in self._bounds.items():
            rates = [float(result["imgs_per_s"]) for result in results]
            speeds = [result["bytes_per_s"] for result in results if result["bytes_per_s"] is not None]
            found.append(
                Roofline(
                    name=entry.name,
                    about=about[entry.name],
                    imgs_per_s=median_interval(rates).median,
                    bytes_per_s=round(median_interval(speeds).median) if speeds else None,
                    rounds=[round(rate, 1) for rate in rates],
                    workers=results[0]["threads"],
                )
            )
        return found

    def _run(self, run: Run) -> str:
        """Run one process, or take its result from an earlier part of the comparison. Return what to show.

        Nothing is shown of a result that an earlier part has shown.
        """
        name = f"{run.position:05}"
        result: dict[str, Any] | JobFailure | None = self._kept.read(name)
        is_kept = result is not None
        if result is None:
            job = self._job(run, self._kept.folder / f"{name}.progress")
            with JobWatch(self._reporter, _describe(run), self._kept.folder / f"{name}.progress") as watch:
                result = self._runner.run(do, job, name, self._budget.deadline(RUN_SECONDS), watch)
        if isinstance(result, JobFailure):
            if result.kind == "timeout" and self._budget.left() <= 0:
                return "ended, since the time is over"
            self.next_steps.append(result.next_step)
            self.failures.append(
                Failure(
                    arm=run.entry.name,
                    workers=run.entry.workers,
                    round=run.round,
                    kind=result.kind,
                    message=result.message,
                )
            )
            return f"failed: {result.message}"
        if not is_kept:
            self._kept.write(name, result)
        shown = self._take(run, result, is_kept=is_kept)
        return "" if is_kept else shown

    def _take(self, run: Run, result: dict[str, Any], *, is_kept: bool) -> str:
        if run.entry.kind == "roofline":
            self._bounds.setdefault(run.entry, []).append(result)
            return f"{result['imgs_per_s']:,.0f} images/s"
        measured = Round.model_validate(result["round"])
        self.rounds.append(measured)
        if is_kept:
            self.kept_seconds += measured.process_s
        error = result["pixel_error"] and PixelError.model_validate(result["pixel_error"])
        before = self._arms.get(run.entry.name, ("", None))[1]
        worst = max(filter(None, (before, error)), key=lambda each: (each.mean, each.max), default=None)
        self._arms[run.entry.name] = result["reader"], worst
        return f"{measured.epochs[0].imgs_per_s:,.0f} images/s"

    def _job(self, run: Run, progress: Path | None = None) -> Job:
        settings, entry = self._settings, run.entry
        if self._facts.store and entry.kind == "roofline" and entry.name != "store_read":
            # These measure what is in memory already.
            settings = settings.model_copy(update={"s3_endpoint_url": self._facts.store})
        arm = ARMS.get(entry.name.removesuffix(AGAIN))
        is_short = settings.quick or bool(settings.batches) or run.round == WARM_UP
        epochs = 1 if is_short else 2 if run.round == settings.measured_rounds else 0
        return Job(
            kind=entry.kind,
            run=run,
            settings=settings,
            folder=self._kept.folder,
            source=self._facts.source,
            environ=dict(arm.environ) if arm else {},
            batches=self._quick_batches(run) if settings.quick else settings.batches,
            epochs=epochs,
            bytes_per_img=self._facts.bytes_per_img,
            distant=self._facts.counters,
            progress=progress,
        )

    def _quick_batches(self, run: Run) -> int:
        """Return how many batches an arm reads in the time of a pass, by its warm-up."""
        if run.round == WARM_UP or (epoch := self._warm_up_of(run.entry)) is None:
            return _QUICK_WARM_UP_BATCHES
        later = (epoch.batches - 1) / max(epoch.seconds - epoch.first_batch_s, 0.01)
        seconds = max(self._pass_seconds - epoch.first_batch_s, 0.0)
        return max(1 + int(min(later, 4 * epoch.batches_per_s) * seconds), _MIN_BATCHES)

    def _warm_up_of(self, entry: Entry) -> EpochRecord | None:
        """Return the epoch of an arm's warm-up; the second run of the A/A arm has that of the first."""
        key = entry.name.removesuffix(AGAIN), entry.workers, WARM_UP
        return next((one.epochs[0] for one in self.rounds if (one.arm, one.workers, one.round) == key), None)

    def _is_given_up(self, entry: Entry) -> bool:
        """Return whether an arm has failed too often to be run again; when time is limited, it may hang once."""
        kinds = [one.kind for one in self.failures if (one.arm, one.workers) == (entry.name, entry.workers)]
        return len(kinds) >= MAX_FAILURES or (self._budget.is_limited and "timeout" in kinds)

    def _seconds_left(self) -> float:
        """Return how long the runs that are left take, by those before; one that hasn't run takes their mean."""
        known = self._seconds.values()
        guess = sum(known) / len(known) if known else _GUESS_SECONDS
        return sum(self._seconds.get(run.entry, guess) for run in self._left if not self._is_given_up(run.entry))


def _describe(run: Run) -> str:
    number = "warm-up" if run.round == WARM_UP else f"round {run.round}"
    return f"{number}, {_describe_entry(run.entry)}"


def _describe_entry(entry: Entry) -> str:
    what = "upper bound " if entry.kind == "roofline" else ""
    return f"{what}{entry.name}" + ("" if entry.name == NOTHING else f" with {entry.workers} workers")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
