"""Put the rounds of several comparisons together, if they are comparable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from larder.bench.comparison_parts import UNKNOWN, Arm, LayoutData, Roofline, Round
from larder.bench.comparison_record import Comparison, Failure, read_comparison
from larder.bench.report.comparable import NamedRecord, require_comparable
from larder.bench.statistics import median_interval
from larder.bench.summarize import MIN_ROUNDS, Conditions, summarize
from larder.errors import InputError


def aggregate(paths: Sequence[Path]) -> Comparison:
    """Return one comparison with the rounds of several, and with a new summary.

    Args:
        paths: Records, at least one.

    Raises:
        InputError: If a file isn't a record, a record comes twice, or two aren't comparable. The message names the
            field that differs.
    """
    records = [read_comparison(path) for path in paths]
    _require_comparable([path.name for path in paths], records)
    first, arms = records[0], _merge_arms(records)
    rounds, rooflines = list(_renumbered(records)), _merge_rooflines(records)
    is_sure = max((one.round for one in rounds), default=0) >= MIN_ROUNDS and all(map(_is_sure, records))
    added = sum(record.summary.repeated.rounds_added for record in records if record.summary.repeated)
    image_bytes = first.data.image_bytes / max(first.data.samples, 1)
    cut = list(dict.fromkeys(phrase for record in records for phrase in record.left_out_for_time))
    return first.model_copy(
        update={
            "id": hashlib.sha256(" ".join(record.id for record in records).encode()).hexdigest(),
            "status": "complete" if all(record.status == "complete" for record in records) else "partial",
            "seconds": round(sum(record.seconds for record in records), 1),
            "provenance": first.provenance.model_copy(update={"versions": _merge_versions(records)}),
            "data": first.data.model_copy(update={"layouts": _merge_layouts(records)}),
            "arms": arms,
            "rounds": rounds,
            "rooflines": rooflines,
            "summary": summarize(rounds, rooflines, Conditions(is_sure, added, image_bytes, first.quick, cut)),
            "left_out": [one for one in first.left_out if one.arm not in {arm.name for arm in arms}],
            "failures": list(_renumbered_failures(records)),
            "left_out_for_time": cut,
            "runs_utc": [time for record in records for time in _times_of(record)],
        }
    )


def _require_comparable(names: Sequence[str], records: Sequence[Comparison]) -> None:
    """Raise InputError if a run comes twice, or two records aren't comparable."""
    contents = [record.model_dump(mode="json", by_alias=True) for record in records]
    first, *others = map(NamedRecord, names, contents)
    for other in others:
        require_comparable(first, other, same_code=True)
    times = [time for record in records for time in _times_of(record)]
    if len(set(times)) < len(times):
        raise InputError("the same comparison was given twice", next_step="give each record once")


def _times_of(record: Comparison) -> list[str]:
    """Return when the runs began that a record has the rounds of."""
    return record.runs_utc or [record.provenance.time_utc]


def _is_sure(record: Comparison) -> bool:
    """Return whether a record has whole epochs of all arms."""
    return record.status == "complete" and not record.quick and not record.settings.get("batches")


def _renumbered(records: Sequence[Comparison]) -> Iterator[Round]:
    """Yield all rounds. Those of later records have numbers and positions after those of earlier ones."""
    last_position = 0
    for record, before in zip(records, _rounds_before(records), strict=True):
        for one in record.rounds:
            update = {"round": _number(one.round, before), "position": one.position + last_position}
            yield one.model_copy(update=update)
        last_position += max((one.position + 1 for one in record.rounds), default=0)


def _renumbered_failures(records: Sequence[Comparison]) -> Iterator[Failure]:
    for record, before in zip(records, _rounds_before(records), strict=True):
        yield from (one.model_copy(update={"round": _number(one.round, before)}) for one in record.failures)


def _rounds_before(records: Sequence[Comparison]) -> list[int]:
    """Return for each record how many rounds the earlier ones have."""
    numbers = [max((one.round for one in record.rounds), default=0) for record in records]
    return [sum(numbers[:at]) for at in range(len(numbers))]


def _number(number: int, before: int) -> int:
    """Return the number of a round after those of earlier records; a warm-up stays one."""
    return number + before if number else number


def _merge_versions(records: Sequence[Comparison]) -> dict[str, str]:
    """Return the versions of all libraries, unknown only where all records don't know them."""
    merged: dict[str, str] = {}
    for record in records:
        for name, version in record.provenance.versions.items():
            merged[name] = version if merged.get(name, UNKNOWN) == UNKNOWN else merged[name]
    return merged


def _merge_layouts(records: Sequence[Comparison]) -> list[LayoutData]:
    return list({layout.layout: layout for record in records for layout in record.data.layouts}.values())


def _merge_rooflines(records: Sequence[Comparison]) -> list[Roofline]:
    merged: dict[tuple[str, int], Roofline] = {}
    for record in records:
        for one in record.rooflines:
            known = merged.get((one.name, one.workers))
            rounds = [*known.rounds, *one.rounds] if known else one.rounds
            merged[one.name, one.workers] = one.model_copy(
                update={"rounds": rounds, "imgs_per_s": median_interval(rounds).median}
            )
    return list(merged.values())


def _merge_arms(records: Sequence[Comparison]) -> list[Arm]:
    """Return all arms; of those in several records, the one with the largest pixel error."""
    merged: dict[str, Arm] = {}
    for record in records:
        for arm in record.arms:
            known = merged.get(arm.name)
            if known is None or _error(arm) > _error(known):
                merged[arm.name] = arm
    return list(merged.values())


def _error(arm: Arm) -> float:
    return -1.0 if arm.pixel_error is None else arm.pixel_error.mean
