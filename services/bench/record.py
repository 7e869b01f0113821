"""The record of a run: the figures, and what they must be read with. README.md says what each key means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from services.bench.feed import Feed, Network
from services.bench.measure import PERCENTILES, Measurement, percentile
from services.bench.settings import SECRETS, BenchSettings


class Warmup(NamedTuple):
    """What was read before anything was measured."""

    batches: int
    seconds: float


def make_record(
    settings: BenchSettings,
    feed: Feed,
    passes: Mapping[str, tuple[Measurement, Network | None]],
    warmup: Warmup,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """Everything of a run as JSON's types; keys are in the order that people read them in.

    The first pass's figures stand on top, those of the others, by name, in `then`.
    """
    first, *others = ({"pass": name} | _figures(*found) for name, found in passes.items())
    return {
        "arm": settings.arm,
        **first,
        "then": others,
        "warmup_batches": warmup.batches,
        "warmup_seconds": _short(warmup.seconds),
        **describe(settings, feed),
        "provenance": provenance,
    }


def describe(settings: BenchSettings, feed: Feed) -> dict[str, Any]:
    """What was read, by what, and how."""
    manifest = feed.manifest
    return {
        "loader": feed.loader,
        "recipe": feed.recipe,
        "dataset": {
            "name": manifest.dataset,
            "artifact": manifest.artifact,
            "manifest_sha256": manifest.digest(),
            "split": settings.split,
            "samples": {name: split.samples for name, split in manifest.splits.items()},
            "bytes": {name: split.bytes for name, split in manifest.splits.items()},
        },
        "settings": settings.model_dump(mode="json", exclude={"arm", "log", "revision", *SECRETS}),
    }


def passes_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of each pass, in their order."""
    return [record, *record["then"]]


def _figures(measured: Measurement, network: Network | None) -> dict[str, Any]:
    batches = len(measured.waits)
    return {
        "imgs/s": _short(measured.images / measured.seconds),
        "batches/s": _short(batches / measured.seconds),
        "avg_batch_s": _short(measured.seconds / batches),
        "batch_wait_s": {
            **{f"p{percent}": _short(percentile(measured.waits, percent)) for percent in PERCENTILES},
            "max": _short(max(measured.waits)),
        },
        "cpu_s_per_1000_imgs": _short(measured.cpu_seconds * 1000 / measured.images),
        "peak_memory_bytes": measured.peak_memory_bytes,
        "peak_memory_kind": measured.peak_memory_kind,
        "network_bytes": None if network is None else network.bytes,
        "network_requests": None if network is None else network.requests,
        "received": measured.received,
        "images": measured.images,
        "batches": batches,
        "seconds": _short(measured.seconds),
    }


def _short(number: float) -> float:
    """Five significant digits: more than any two runs share."""
    return float(f"{number:.5g}")
