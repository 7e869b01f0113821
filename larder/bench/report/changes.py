"""Compare two records of the same machine, data and settings: what changed beyond the noise."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from larder.bench.report import facts
from larder.bench.report.agreement import describe, find_agreement
from larder.bench.report.comparable import SOFTWARE, NamedRecord, require_comparable
from larder.bench.report.facts import UNKNOWN, Record, number, size
from larder.bench.report.read import RecordFile
from larder.bench.report.tables import Table
from larder.errors import InputError

_RESAMPLES = 2000
_SEED = 20260101  # the same records give the same intervals
SAME, FASTER, SLOWER, UNSURE = "no change beyond the noise", "faster", "slower", "noise unknown"


class Change(NamedTuple):
    """The change of one arm's images per second."""

    arm: str
    workers: int
    before: Record
    after: Record
    ratio: float
    """Median of the rates after, over that before; 0 if a record lacks the arm's rounds."""
    low: float
    """Lower end of the ratio's 95% interval."""
    high: float
    verdict: str


class Changes(NamedTuple):
    """What changed from an earlier record to a later one."""

    before: RecordFile
    after: Record
    noise: float | None
    """The ratio must be further from 1 than this; None if it is unknown."""
    arms: list[Change]
    only_before: list[str]
    only_after: list[str]
    software: Table
    """What else is different."""


def compare_records(after: RecordFile, before: RecordFile) -> Changes:
    """Return what changed.

    Raises:
        InputError: If the records aren't comparable; the message names the field that differs.
    """
    if after.sha256 == before.sha256:
        raise InputError(f"{before.name} is the same record", next_step="name the record of another run")
    named = [NamedRecord(one.name, one.content) for one in (after, before)]
    require_comparable(*named, same_code=False)
    noise = _noise(before.content, after.content)
    earlier = {(one["arm"], one["workers"]): one for one in facts.summaries(before.content)}
    later = {(one["arm"], one["workers"]): one for one in facts.summaries(after.content)}
    if not earlier.keys() & later.keys():
        raise InputError(
            f"{after.name} and {before.name} have no arm with the same number of workers in common",
            next_step="compare again with the arms and workers of the other record",
        )
    arms = [
        _change(before.content, earlier[key], after.content, one, noise) for key, one in later.items() if key in earlier
    ]
    return Changes(
        before,
        after.content,
        noise,
        arms,
        [_named(before.content, key) for key in earlier if key not in later],
        [_named(after.content, key) for key in later if key not in earlier],
        Table(
            "What else differs", ("what", "before", "now"), list(_differences(before.content, after.content)),
            frozenset({0, 1, 2}),
        ),
    )  # fmt: skip


def headline(changes: Changes) -> str:
    """Return the result in a sentence."""
    against = f"Against {changes.before.name} of {facts.time_of(changes.before.content)}"
    if changes.noise is None:
        return f"{against}: the A/A test is missing in a record, so it is unknown which changes are beyond the noise."
    changed = [one for one in changes.arms if one.verdict in (FASTER, SLOWER)]
    if all(one.verdict == UNSURE for one in changes.arms):
        return f"{against}: a record lacks the rounds, so it is unknown what changed."
    if not changed:
        return f"{against}: nothing changed beyond the noise of {changes.noise:.1%}."
    parts = [
        f"{_named(changes.after, (one.arm, one.workers))} is {abs(one.ratio - 1):.0%} {one.verdict}" for one in changed
    ]
    return f"{against}: {'; '.join(parts)}. Smaller changes are within the noise of {changes.noise:.1%}."


def changes_table(changes: Changes) -> Table:
    """Return the change of each arm."""
    rows = [
        (
            one.arm,
            facts.workers_of(changes.after, one.after),
            number(one.before["imgs_per_s"]["median"]),
            number(one.after["imgs_per_s"]["median"]),
            f"{one.ratio:.3f} ({one.low:.3f} to {one.high:.3f})" if one.ratio else facts.NO_FIGURE,
            one.verdict,
            *_arrows(changes, one),
        )
        for one in changes.arms
    ]
    header = (
        "arm", "workers", "before, imgs/s", "now, imgs/s", "ratio", "verdict", "CPU s/1,000 imgs", "peak memory",
        "network/img",
    )  # fmt: skip
    return Table("Changes", header, rows, frozenset({0, 5}))


def remarks(changes: Changes) -> list[str]:
    """Return whether the runs agree, and which arms only one of the records has."""
    agreement = find_agreement([(one.before, one.after) for one in changes.arms])
    found = [describe(agreement)]
    found += [f"only in {changes.before.name}: {name}" for name in changes.only_before]
    return found + [f"new: {name}" for name in changes.only_after]


def ratio_interval(after: Sequence[float], before: Sequence[float]) -> tuple[float, float, float]:
    """Return the ratio of two medians with its 95% percentile bootstrap interval: median, low, high.

    Example:
        >>> ratio_interval([30.0, 30.0], [10.0, 10.0])
        (3.0, 3.0, 3.0)
    """
    draw = random.Random(_SEED)

    def median_of(values: Sequence[float]) -> float:
        return statistics.median(draw.choices(values, k=len(values)))

    ratios = sorted(median_of(after) / median_of(before) for _ in range(_RESAMPLES))
    cut = round(_RESAMPLES * 0.025)
    return statistics.median(after) / statistics.median(before), ratios[cut], ratios[-1 - cut]


def _change(before: Record, earlier: Record, after: Record, later: Record, noise: float | None) -> Change:
    old, new = facts.rates_of(before, earlier), facts.rates_of(after, later)
    if not old or not new or min(old) <= 0:
        ratio, low, high, verdict = 0.0, 0.0, 0.0, UNSURE
    else:
        ratio, low, high = ratio_interval(new, old)
        verdict = _verdict(low, high, noise)
    return Change(later["arm"], later["workers"], earlier, later, ratio, low, high, verdict)


def _verdict(low: float, high: float, noise: float | None) -> str:
    if noise is None:
        return UNSURE
    return FASTER if low > 1 + noise else SLOWER if high < 1 - noise else SAME


def _noise(*records: Record) -> float | None:
    """Return how far the same arm's ratio to itself was from 1, at most, in the A/A tests of both records."""
    tests = [record["summary"]["repeated"] for record in records]
    if any(test is None for test in tests):
        return None
    return max(abs(float(test["ratio"][end]) - 1) for test in tests for end in ("low", "high"))


def _differences(before: Record, after: Record) -> Iterator[tuple[str, str, str]]:
    pairs = [(name, before["provenance"][name], after["provenance"][name]) for name in SOFTWARE]
    old, new = before["provenance"]["versions"], after["provenance"]["versions"]
    pairs += [(name, old.get(name, UNKNOWN), new.get(name, UNKNOWN)) for name in sorted({*old, *new})]
    packed, repacked = _manifests(before), _manifests(after)
    pairs += [
        (f"manifest of {name}", packed[name], repacked[name]) for name in sorted(packed) if name in repacked
    ]  # fmt: skip
    names = sorted({*before["settings"], *after["settings"]})
    pairs += [(f"setting {name}", before["settings"].get(name), after["settings"].get(name)) for name in names]
    yield from ((name, str(one), str(other)) for name, one, other in pairs if one != other)


def _manifests(record: Record) -> dict[str, str]:
    return {layout["layout"]: layout["manifest_sha256"][:12] for layout in record["data"]["layouts"]}


def _arrows(changes: Changes, change: Change) -> Iterator[str]:
    old, new = change.before, change.after
    yield f"{number(old['cpu_s_per_1000_imgs']['median'], 2)} → {number(new['cpu_s_per_1000_imgs']['median'], 2)}"
    yield f"{size(old['peak_memory_bytes'])} → {size(new['peak_memory_bytes'])}"
    yield " → ".join(facts.traffic_of(*pair)[0] for pair in ((changes.before.content, old), (changes.after, new)))


def _named(record: Record, key: tuple[str, int]) -> str:
    return f"{key[0]} with {facts.ran_with(record, *key)}"
