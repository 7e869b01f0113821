"""Build the record of a run: its figures, and the conditions under which they were measured.

docs/contract.md shows RECORD_FIELDS and DATASET_FIELDS as tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from larder.bench.measure import PERCENTILES, percentile
from larder.bench.passes import Pass, Warmup
from larder.loaders.loader import Loader


class RecordField(NamedTuple):
    """A key of a record: the unit of its value, and its meaning."""

    unit: str
    meaning: str


_COUNTED = "null if the arm uses no network, or the number is unknown"
DATASET_FIELDS = {
    "name": RecordField("", "name of the dataset"),
    "artifact": RecordField("", "kind of the artifact, as in its manifest"),
    "manifest_sha256": RecordField("", "digest of the manifest"),
    "split": RecordField("", "the split that was read"),
    "samples": RecordField("", "number of samples of each split"),
    "bytes": RecordField("bytes", "total length of each split's images"),
}
"""The keys of `dataset`."""
CONDITION_FIELDS = {
    "loader": RecordField("", "the loader: larder's or a library's, with its version"),
    "recipe": RecordField("", "preprocessing of each image"),
    "dataset": RecordField("", "the data (see below)"),
    "settings": RecordField("", "all settings, as used, without the store's keys"),
    "provenance": RecordField("", "code, libraries and machine (see below)"),
}
"""The keys that describe under which conditions a loader was measured or a network was trained."""
RECORD_FIELDS = {
    "arm": RecordField("", "the arm that was measured"),
    "pass": RecordField("", "the pass that the following keys, down to `seconds`, describe: `epoch`, or `cold`"),
    "imgs/s": RecordField("images/s", "images of the pass over its seconds"),
    "batches/s": RecordField("batches/s", "batches of the pass over its seconds; an epoch's last batch may be short"),
    "avg_batch_s": RecordField("s", "seconds of the pass over its batches"),
    "batch_wait_s": RecordField(
        "s", "time from requesting to receiving a batch: `p50`, `p90`, `p99` (nearest rank), `max`"
    ),
    "cpu_s_per_1000_imgs": RecordField(
        "s", "user and system time of this process and its workers in the pass, per 1,000 images"
    ),
    "peak_memory_bytes": RecordField(
        "bytes", "highest sum over this process and its workers in the pass, sampled twice a second, to 1%"
    ),
    "peak_memory_kind": RecordField("", "`pss`: shared pages count once (Linux); `rss`: once per process"),
    "network_bytes": RecordField("bytes", f"network traffic of the pass; {_COUNTED}"),
    "network_requests": RecordField("requests", f"network requests of the pass; {_COUNTED}"),
    "received": RecordField(
        "s, bytes/s",
        "bytes received over time, sampled four times a second. `t_s`: times of the samples, from the start of the "
        "pass; `bytes_per_s`: rate from each sample to the next. Counted by all network interfaces, including headers "
        "and other programs, or, for `imagefolder_rclone_mount`, by rclone",
    ),
    "images": RecordField("images", "images of the pass"),
    "batches": RecordField("batches", "batches of the pass"),
    "seconds": RecordField("s", "duration of the pass"),
    "then": RecordField("", "the same keys, from `pass` to `seconds`, of each further pass; empty if there is none"),
    "warmup_batches": RecordField("batches", "batches of the warm-up; 0 if there is none"),
    "warmup_seconds": RecordField("s", "duration of the warm-up, including the start of the workers"),
    **CONDITION_FIELDS,
}
"""The keys of a record, in order."""


def make_record(
    arm: str,
    loader: Loader,
    passes: Mapping[str, Pass],
    warmup: Warmup,
    *,
    settings: dict[str, Any],
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """Return a run as JSON types, with keys in reading order.

    The figures of the first pass are at the top level, those of the others in `then`.

    Args:
        arm: Name of the run.
        loader: The loader that was measured.
        passes: The passes, by name.
        warmup: The warm-up.
        settings: Settings of the run, without secrets.
        provenance: See `provenance.collect`.
    """
    first, *later = ({"pass": name} | figures_of(measured) for name, measured in passes.items())
    return {
        "arm": arm,
        **first,
        "then": later,
        "warmup_batches": warmup.batches,
        "warmup_seconds": _round(warmup.seconds),
        **describe(loader, settings),
        "provenance": provenance,
    }


def describe(loader: Loader, settings: dict[str, Any]) -> dict[str, Any]:
    """Describe the data, the loader and the settings."""
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
    """Return the figures of each pass, in order."""
    return [record, *record["then"]]


def figures_of(measured_pass: Pass) -> dict[str, Any]:
    """Return the figures of a pass, from `imgs/s` to `seconds` in RECORD_FIELDS."""
    measured, network = measured_pass
    batches = len(measured.waits)
    return {
        "imgs/s": _round(measured.images / measured.seconds),
        "batches/s": _round(batches / measured.seconds),
        "avg_batch_s": _round(measured.seconds / batches),
        "batch_wait_s": {
            **{f"p{percent}": _round(percentile(measured.waits, percent)) for percent in PERCENTILES},
            "max": _round(max(measured.waits)),
        },
        "cpu_s_per_1000_imgs": _round(measured.cpu_seconds * 1000 / measured.images),
        "peak_memory_bytes": measured.peak_memory_bytes,
        "peak_memory_kind": measured.peak_memory_kind,
        "network_bytes": None if network is None else network.bytes,
        "network_requests": None if network is None else network.requests,
        "received": measured.received,
        "images": measured.images,
        "batches": batches,
        "seconds": _round(measured.seconds),
    }


def _round(number: float) -> float:
    """Round to five significant digits: more than the precision of any measurement."""
    return float(f"{number:.5g}")
