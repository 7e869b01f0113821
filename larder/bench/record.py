"""The record of a run: the figures, and what they must be read with.

services/bench/README.md says what each key means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from larder.bench.measure import PERCENTILES, percentile
from larder.bench.passes import Pass, Warmup
from larder.loaders.loader import Loader


def make_record(
    arm: str, loader: Loader, passes: Mapping[str, Pass], warmup: Warmup, *, settings: dict[str, Any],
    provenance: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Everything of a run as JSON's types; keys are in the order that people read them in.

    The first pass's figures stand on top, those of the others, by name, in `then`. `arm` is what the run is called,
    `settings` what it was made with; they hold no secrets.
    """
    first, *others = ({"pass": name} | _figures(found) for name, found in passes.items())
    return {
        "arm": arm,
        **first,
        "then": others,
        "warmup_batches": warmup.batches,
        "warmup_seconds": _short(warmup.seconds),
        **describe(loader, settings),
        "provenance": provenance,
    }


def describe(loader: Loader, settings: dict[str, Any]) -> dict[str, Any]:
    """What was read, by what, and how."""
    manifest = loader.manifest
    return {
        "loader": loader.reader,
        "recipe": loader.preprocessing,
        "dataset": {
            "name": manifest.dataset,
            "artifact": manifest.artifact,
            "manifest_sha256": manifest.digest(),
            "split": loader.split,
            "samples": {name: split.samples for name, split in manifest.splits.items()},
            "bytes": {name: split.bytes for name, split in manifest.splits.items()},
        },
        "settings": settings,
    }


def passes_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of each pass, in their order."""
    return [record, *record["then"]]


def _figures(seen: Pass) -> dict[str, Any]:
    measured, network = seen
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
