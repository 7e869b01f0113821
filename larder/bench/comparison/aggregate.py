"""Put the rounds of several comparisons together, if they are comparable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from larder.bench.record_parts import UNKNOWN, Arm, Roofline, Round
from larder.bench.records import Comparison, read_comparison
from larder.bench.statistics import median_interval
from larder.bench.summarize import MIN_ROUNDS, summarize
from larder.errors import InputError

_MACHINE = (
    "cpu_model", "cores", "cpu_quota_cores", "memory_bytes", "memory_limit_bytes", "kernel", "storage", "endpoint",
    "latency_s", "bandwidth_bits_per_s", "accelerator", "in_container", "larder", "revision", "python",
)  # fmt: skip
_DATA = ("dataset", "split", "samples", "classes", "image_bytes")
_SETTINGS = ("batch_size", "batches", "webdataset_loader", "max_cache_size", "max_pre_download")


class _Named(NamedTuple):
    """A record, and the name of its file."""

    name: str
    record: Comparison


def aggregate(paths: Sequence[Path]) -> Comparison:
    """Return one comparison with the rounds of several, and with a new summary.

    Args:
        paths: Records, at least one.

    Raises:
        InputError: If a file isn't a record, a record comes twice, or two aren't comparable. The message names the
            field that differs.
    """
    named = [_Named(path.name, read_comparison(path)) for path in paths]
    first = named[0]
    for other in named[1:]:
        _require_comparable(first, other)
    records = [each.record for each in named]
    if len({record.provenance.time_utc for record in records}) < len(records):
        raise InputError("the same comparison was given twice", next_step="give each record once")
    rounds = list(_renumbered(records))
    rooflines = _merge_rooflines(records)
    is_sure = max((one.round for one in rounds), default=0) >= MIN_ROUNDS and all(map(_is_sure, records))
    arms = _merge_arms(records)
    added = sum(record.summary.repeated.rounds_added for record in records if record.summary.repeated)
    cut = list(dict.fromkeys(phrase for record in records for phrase in record.left_out_for_time))
    return first.record.model_copy(
        update={
            "id": hashlib.sha256(" ".join(record.id for record in records).encode()).hexdigest(),
            "status": "complete" if all(record.status == "complete" for record in records) else "partial",
            "seconds": round(sum(record.seconds for record in records), 1),
            "arms": arms,
            "rounds": rounds,
            "rooflines": rooflines,
            "summary": summarize(
                rounds, rooflines, is_sure=is_sure, rounds_added=added, quick=first.record.quick, cut=cut
            ),
            "left_out_for_time": cut,
            "left_out": [one for one in first.record.left_out if one.arm not in {arm.name for arm in arms}],
            "failures": [failure for record in records for failure in record.failures],
        }
    )


def _is_sure(record: Comparison) -> bool:
    """Return whether a record has whole epochs of all arms."""
    return record.status == "complete" and not record.quick and not record.settings.get("batches")


def _require_comparable(first: _Named, other: _Named) -> None:
    """Raise InputError for the first field in which two records differ, and that matters."""
    versions = [record.provenance.versions for record in (first.record, other.record)]
    both = sorted(versions[0].keys() & versions[1].keys())
    facts = zip(_facts(first.record, both), _facts(other.record, both), strict=True)
    for (field, ours), (_, theirs) in facts:
        if ours != theirs and not (field.startswith("provenance.versions.") and UNKNOWN in (ours, theirs)):
            raise InputError(
                f"{first.name} and {other.name} aren't comparable: {field} is {_shown(ours)} in one and "
                f"{_shown(theirs)} in the other",
                next_step="put together records of the same machine, data, versions and settings",
            )
    ours_of = {layout.layout: layout.manifest_sha256 for layout in first.record.data.layouts}
    for layout in other.record.data.layouts:
        expected = ours_of.get(layout.layout, layout.manifest_sha256)
        if layout.manifest_sha256 != expected:
            raise InputError(
                f"{first.name} and {other.name} aren't comparable: data.layouts.{layout.layout}.manifest_sha256 "
                f"is {_shown(expected)} in one and {_shown(layout.manifest_sha256)} in the other",
                next_step="put together records of the same data",
            )


def _facts(record: Comparison, packages: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the fields that must be the same, with their names in the record; `packages` are those of both records."""
    yield "quick", record.quick
    for name in _DATA:
        yield f"data.{name}", getattr(record.data, name)
    for name in _MACHINE:
        yield f"provenance.{name}", getattr(record.provenance, name)
    for name in packages:
        yield f"provenance.versions.{name}", record.provenance.versions[name]
    for name in _SETTINGS:
        yield f"settings.{name}", record.settings.get(name)


def _shown(value: Any) -> str:
    return f"{str(value)[:200]!r}"


def _renumbered(records: Sequence[Comparison]) -> Iterator[Round]:
    """Yield all rounds. Those of later records have numbers and positions after those of earlier ones."""
    last_round = last_position = 0
    for record in records:
        for one in record.rounds:
            number = one.round + last_round if one.round else 0
            yield one.model_copy(update={"round": number, "position": one.position + last_position})
        last_round += max((one.round for one in record.rounds), default=0)
        last_position += max((one.position + 1 for one in record.rounds), default=0)


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
