"""Compare arms: find the data, run the rounds, and build the record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

from larder.bench.arms import ARMS
from larder.bench.comparison.data import FoundData, describe_left_out, find_data
from larder.bench.comparison.describe import describe_data, describe_machine, identity_of, question_of
from larder.bench.comparison.files import ComparisonFiles, write_files
from larder.bench.comparison.images import ImageSource, source_of
from larder.bench.comparison.job_progress import JobWatch
from larder.bench.comparison.kept import KeptRounds, keep_rounds
from larder.bench.comparison.plan import WARM_UP, plan_entries
from larder.bench.comparison.processes import JobFailure
from larder.bench.comparison.reference import MAX_SAMPLES
from larder.bench.comparison.rooflines import ABOUT, available_rooflines
from larder.bench.comparison.runners import PeerRunner
from larder.bench.comparison.session import DataFacts, Means, Session
from larder.bench.comparison.settings import ComparisonSettings
from larder.bench.comparison.time_budget import REFERENCE_SECONDS, TimeBudget
from larder.bench.comparison.work import PRELOADED, Job, do
from larder.bench.comparison_parts import UNKNOWN, Provenance
from larder.bench.comparison_record import Comparison
from larder.bench.record_folder import reserve
from larder.bench.summarize import MIN_ROUNDS, NOTHING, Conditions, summarize
from larder.bench.training import choose_device
from larder.bench.wording import name_settings_in_errors
from larder.distant.find import find_link
from larder.distant.link import Link, join_links, require_plain_http
from larder.distant.process import open_distant_store
from larder.errors import InputError
from larder.progress import Reporter, format_amount
from larder.terminal import Lines, join_lines


def compare(
    settings: ComparisonSettings, reporter: Reporter, *, to_commands: Callable[[str], str] = str
) -> ComparisonFiles:
    """Compare the arms that the data allow, and write record and tables into the folder of results.

    An interrupted comparison resumes when it is started again with the same settings, data and machine.

    Args:
        settings: What to compare.
        reporter: Receives progress.
        to_commands: Replaces the names of stages in texts by commands.

    Raises:
        ConfigurationError: If the split has too few samples, the store can't be made distant, or the
            device isn't there.
        InputError: If there are no data to compare.
        ResourceError: If no process can be started.
        StorageError: If the folder of results can't be written.
    """
    started, budget = datetime.now(UTC), TimeBudget.of_comparison(quick=settings.quick)
    _require_means(settings)
    _report_two_links(settings, reporter)
    packages = [package for name in settings.chosen_arms for package in ARMS[name].packages]
    machine = describe_machine(started, settings, [name for name in packages if name != "larder-data"])
    with reserve(settings.results, f"compare-{started:%Y%m%dT%H%M%SZ}") as record_file:
        found = find_data(settings, settings.chosen_arms, to_commands)
        for reason in describe_left_out(found.left_out):
            reporter.event("left out", f"left out: {reason}")
        identity = identity_of(settings, found, machine, available_rooflines(source_of(settings, found.references)))
        with (
            keep_rounds(settings.results, question_of(settings), identity) as kept,
            PeerRunner(kept.folder, settings.round_seconds, PRELOADED) as runner,
        ):
            runner.start()
            _report_kept(kept, reporter)
            comparison = _run(Means(settings, kept, runner, reporter, budget), found, machine, identity)
            files = write_files(record_file, comparison)
            kept.remove()
    return files


def _report_two_links(settings: ComparisonSettings, reporter: Reporter) -> None:
    """Warn if the comparison's link comes on top of the one that the store is behind already."""
    own = settings.link
    if own is None or own == Link(0.0, None) or (other := find_link(settings.s3_endpoint_url)) is None:
        return
    both = join_links(own, other)
    assert both is not None
    reporter.event(
        "two links",
        f"warning: LARDER_LINK_LATENCY and LARDER_LINK_BANDWIDTH add {own.describe()} to {other.describe()} of s3-up: "
        f"arms read through {both.describe()}. Leave both empty to measure the link of s3-up alone",
    )


def _report_kept(kept: KeptRounds, reporter: Reporter) -> None:
    """Tell what an interrupted comparison has left, and whether it counts."""
    if kept.removed:
        reporter.event(
            "starting over",
            f"the results of an interrupted comparison don't count: data, code, libraries or machine have changed "
            f"since, so {format_amount(kept.removed, 'results')} were removed",
        )
    if count := kept.count():
        reporter.event("resuming", f"resuming a comparison: {format_amount(count, 'runs')} had ended, and count")


def _run(means: Means, found: FoundData, machine: Provenance, identity: str) -> Comparison:
    """Run all rounds, and return the record."""
    settings = means.settings
    source = source_of(settings, found.references)
    summary = found.manifest.splits[settings.split]
    facts = DataFacts(source, summary.bytes / max(summary.samples, 1))
    entries = plan_entries(found.arms, settings.worker_counts, available_rooflines(source))
    reference = _make_reference(means, source, summary.samples)
    last = settings.measured_rounds
    with _at_a_distance(settings, facts, means.kept) as (of_rounds, facts):
        session = Session(means._replace(settings=of_rounds), entries, facts)
        session.run_rounds(WARM_UP, last)
        added = 0 if settings.quick else session.add_rounds(last + 1, settings.extra_seconds)
    _require_results(session)
    left_out = session.left_out_for_time() + (["the check of samples and pixels"] if reference.took_too_long else [])
    is_partial = bool(session.failures)
    is_sure = not (settings.quick or is_partial or last < MIN_ROUNDS or settings.batches)
    rooflines = session.rooflines(ABOUT)
    return Comparison(
        id=identity,
        status="partial" if is_partial else "complete",
        quick=settings.quick,
        seconds=round(means.budget.spent() + session.kept_seconds, 1),
        provenance=machine,
        data=describe_data(found, settings.split, reference.digest),
        settings=settings.compared(),
        arms=session.arms(),
        rounds=session.rounds,
        rooflines=rooflines,
        summary=summarize(
            session.rounds,
            rooflines,
            Conditions(is_sure, added, facts.bytes_per_img, quick=settings.quick, left_out_for_time=left_out),
        ),
        left_out=found.left_out,
        left_out_for_time=left_out,
        failures=session.failures,
    )


def _require_means(settings: ComparisonSettings) -> None:
    """Raise ConfigurationError if the settings ask for what this machine or store doesn't have."""
    if settings.link is not None:
        require_plain_http(settings.s3_endpoint_url)
    if settings.device != "auto":
        with name_settings_in_errors(type(settings), {}):
            choose_device(settings.device)


@contextmanager
def _at_a_distance(
    settings: ComparisonSettings, facts: DataFacts, kept: KeptRounds
) -> Iterator[tuple[ComparisonSettings, DataFacts]]:
    """Make the store distant if the settings say so: the settings for rounds, and what they must know."""
    if settings.link is None:
        yield settings, facts
        return
    with open_distant_store(settings.s3_endpoint_url, settings.link, kept.folder) as distant:
        near = facts._replace(counters=distant.counters, store=settings.s3_endpoint_url)
        yield settings.model_copy(update={"s3_endpoint_url": distant.endpoint}), near


def _require_results(session: Session) -> None:
    """Raise InputError if every arm has failed."""
    if not any(one.round > WARM_UP and one.arm != NOTHING for one in session.rounds):
        if not session.failures:
            raise InputError(
                "no arm could be measured in the time of a quick comparison",
                next_step="run the whole comparison, or name fewer arms in LARDER_ARMS",
            )
        reasons = {f"  - {one.arm}: {one.message}": None for one in session.failures}
        raise InputError(
            join_lines("no arm could be measured:", *reasons),
            next_step=next(filter(None, session.next_steps), "run the same command again"),
        )


class _Reference(NamedTuple):
    """PIL's pixels of all samples, on disk."""

    digest: str = UNKNOWN
    """What each epoch must have; "unknown" without a reference."""
    took_too_long: bool = False
    """Whether a quick comparison had no time for it."""


def _make_reference(means: Means, source: ImageSource | None, samples: int) -> _Reference:
    """Make the reference. Samples are numbered in the order of the shards, or else of the tree."""
    if source is None or samples > MAX_SAMPLES:
        why = "no shards or tree to read" if source is None else f"more than {MAX_SAMPLES:,} samples"
        means.reporter.event("no reference", f"{why}: pixels and samples of the arms aren't checked")
        return _Reference()
    if (known := means.kept.read("reference")) is not None:
        return _Reference(str(known["digest"]))
    means.reporter.event("reference", f"decoding {samples:,} images with PIL, to check what the arms yield")
    sources = [source]
    if source.shards and source.tree:
        sources.append(source._replace(shards=""))  # in case that the store fails
    for each in sources:
        progress = means.kept.folder / "reference.progress"
        job = Job("reference", None, means.settings, means.kept.folder, each, progress=progress, samples=samples)
        with JobWatch(means.reporter, "decoding with PIL", progress) as watch:
            made = means.runner.run(do, job, "reference", means.budget.deadline(REFERENCE_SECONDS), watch)
        if not isinstance(made, JobFailure):
            means.kept.write("reference", made)
            return _Reference(str(made["digest"]))
        means.reporter.event("no reference", f"the images can't be decoded for checks: {made.message}")
        if made.kind == "timeout" and means.budget.is_limited:
            return _Reference(took_too_long=True)
    return _Reference()


def outcome_of(comparison: Comparison) -> Lines:
    """Return what to tell at the end: the answer, and what went wrong."""
    failed = [f"{one.arm}, round {one.round}: {one.message}" for one in comparison.failures]
    return join_lines(comparison.summary.answer, *failed)
