"""Find out whether two records are comparable: which facts must be the same for that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from larder.bench.report.facts import UNKNOWN, Record
from larder.errors import InputError

DATA = ("dataset", "split", "samples", "classes", "image_bytes")
MACHINE = (
    "cpu_model", "cores", "cpu_quota_cores", "memory_bytes", "memory_limit_bytes", "storage", "endpoint", "latency_s",
    "bandwidth_bits_per_s", "accelerator", "in_container",
)  # fmt: skip
SETTINGS = ("batch_size", "batches")
SOFTWARE = ("larder", "revision", "python", "kernel")
_READERS = ("webdataset_loader", "max_cache_size", "max_pre_download")
"""Settings that change how an arm reads."""


class NamedRecord(NamedTuple):
    """A record, and the name of its file."""

    name: str
    content: Record


def require_comparable(ours: NamedRecord, theirs: NamedRecord, *, same_code: bool) -> None:
    """Refuse two records that differ in a fact on which the figures depend.

    Args:
        ours: A record.
        theirs: Another one.
        same_code: Whether code, libraries, packing and the readers' settings must also be the same, as for rounds that
            are put together; else the records may show what a change of them did.

    Raises:
        InputError: If they aren't comparable. The message names the field that differs.
    """
    for field, one, other in _pairs(ours.content, theirs.content, same_code=same_code):
        if one != other:
            raise InputError(
                f"{ours.name} and {theirs.name} aren't comparable: {field} is {_shown(one)} in one and {_shown(other)} "
                "in the other",
                next_step="name records of the same machine, data, versions and settings"
                if same_code
                else "name a record of the same machine, data and settings",
            )


def _pairs(ours: Record, theirs: Record, *, same_code: bool) -> Iterator[tuple[str, Any, Any]]:
    """Yield the facts that must be the same: their names in the record, and both values."""
    yield "quick", ours["quick"], theirs["quick"]
    yield from _of_part("data", DATA, ours, theirs)
    yield from _of_part("provenance", MACHINE, ours, theirs)
    yield from _of_part("settings", SETTINGS, ours, theirs)
    yield from _known("data.samples_digest", ours["data"]["samples_digest"], theirs["data"]["samples_digest"])
    if same_code:
        yield from _of_part("provenance", SOFTWARE, ours, theirs)
        yield from _of_part("settings", _READERS, ours, theirs)
        yield from _of_code(ours, theirs)


def _of_part(part: str, names: Sequence[str], ours: Record, theirs: Record) -> Iterator[tuple[str, Any, Any]]:
    yield from ((f"{part}.{name}", ours[part].get(name), theirs[part].get(name)) for name in names)


def _of_code(ours: Record, theirs: Record) -> Iterator[tuple[str, Any, Any]]:
    """Yield the libraries and layouts that both records have; other arms have others."""
    versions, others = ours["provenance"]["versions"], theirs["provenance"]["versions"]
    for name in sorted(versions.keys() & others.keys()):
        yield from _known(f"provenance.versions.{name}", versions[name], others[name])
    packed = {layout["layout"]: layout["manifest_sha256"] for layout in ours["data"]["layouts"]}
    for layout in theirs["data"]["layouts"]:
        if (name := layout["layout"]) in packed:
            yield f"data.layouts.{name}.manifest_sha256", packed[name], layout["manifest_sha256"]


def _known(field: str, one: str, other: str) -> Iterator[tuple[str, str, str]]:
    """Yield a fact, unless it is unknown in a record."""
    if UNKNOWN not in (one, other):
        yield field, one, other


def _shown(value: Any) -> str:
    return f"{str(value)[:200]!r}"
