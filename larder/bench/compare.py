"""Records side by side: each arm's throughput with its spread, and how many times faster the fastest one is."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from larder.bench.record import passes_of
from larder.errors import InputError
from larder.terminal import lines

MEASURE = "measure at least two arms"
"""A next step."""


class Arm(NamedTuple):
    """What was measured of one arm, or of one pass of it."""

    name: str
    rates: list[float]
    """images/s of each run, sorted."""

    @property
    def median(self) -> float:
        """images/s."""
        return statistics.median(self.rates)


class Comparison(NamedTuple):
    """Arms that were measured under the same circumstances, fastest first."""

    circumstances: str
    arms: list[Arm]

    def verdict(self) -> str:
        """Which arm wins here, and by how much: of medians, with the ratios of the most unequal runs."""
        best, *others = self.arms
        if not others:
            return f"only {best.name} was measured under these circumstances: measure another arm"
        rows = []
        for other in others:
            low, high = best.rates[0] / other.rates[-1], best.rates[-1] / other.rates[0]
            rows.append(f"{best.name} is {best.median / other.median:.2f} times as fast as {other.name}"
                         + (f" ({low:.2f} to {high:.2f})" if low < high else " (one run each)")
                         + ("; no significant difference (intervals overlap)" if low <= 1 else ""))  # fmt: skip
        return lines(*rows)


def read_records(folder: Path) -> list[dict[str, Any]]:
    """bench's records in a folder, oldest first; those of trainings are left out.

    Raises InputError when there is none, or when one can't be read.
    """
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.get("kind") != "train":
                circumstances(record)
                _runs(record)  # the two look at all that is compared
                records.append((record["provenance"]["time_utc"], record))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(
                f"{path} is no record of bench: {error!r}", next_step="move it out of the folder of records"
            ) from None
    if not records:
        raise InputError(
            f"{folder} has no records to compare",
            next_step=MEASURE,
        )
    return [record for _, record in sorted(records, key=lambda each: str(each[0]))]


def compare(records: Iterable[dict[str, Any]]) -> list[Comparison]:
    """Group records by their circumstances, most records first; each pass counts as an arm of its own."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(circumstances(record), []).append(record)
    return [Comparison(where, _arms(groups[where])) for where in sorted(groups, key=lambda each: -len(groups[each]))]


class _Run(NamedTuple):
    """What one pass of a record is compared by."""

    loop: str
    """The arm, who read for it where there is a choice, and the pass where there are several."""
    store: str
    """Empty for an arm that uses no network."""
    manifest: str
    rate: float


def _runs(record: dict[str, Any]) -> list[_Run]:
    """Each pass of a record. Raises KeyError or TypeError where something is missing."""
    loader = record["settings"]["webdataset_loader"] if record["arm"] == "webdataset" else ""
    loop = f"{record['arm']} by {loader}" if loader == "webdataset" else str(record["arm"])
    store = urlsplit(record["settings"]["s3_endpoint_url"]).netloc or "AWS"
    return [
        _Run(
            f"{loop} ({figures['pass']})" if record["then"] else loop,
            "" if figures["network_bytes"] is None else store,
            record["dataset"]["manifest_sha256"][:8],
            figures["imgs/s"],
        )
        for figures in passes_of(record)
    ]


def _arms(records: Iterable[dict[str, Any]]) -> list[Arm]:
    """The arms among records of the same circumstances, fastest first.

    Another store or another packing makes another arm, and is named where there is more than one.
    """
    runs = [run for record in records for run in _runs(record)]
    stores = {run.store for run in runs if run.store}
    manifests = {run.loop: {other.manifest for other in runs if other.loop == run.loop} for run in runs}
    rates: dict[str, list[float]] = {}
    for run in runs:
        origin = f" from {run.store}" if run.store and len(stores) > 1 else ""
        data = f", manifest {run.manifest}" if len(manifests[run.loop]) > 1 else ""
        rates.setdefault(f"{run.loop}{origin}{data}", []).append(run.rate)
    return sorted((Arm(name, sorted(found)) for name, found in rates.items()), key=lambda arm: -arm.median)


def circumstances(record: dict[str, Any]) -> str:
    """What must be the same for two rates to be compared: the data, the settings of the loop, the machine."""
    settings, dataset, made = record["settings"], record["dataset"], record["provenance"]
    samples = dataset["samples"][dataset["split"]]
    batches = f"{settings['batches']} batches" if settings["batches"] else "a whole epoch"
    place = "in a container" if made["in_container"] else "on the host"
    return (
        f"{dataset['name']}, {samples:,} images of {dataset['split']}, {batches} of {settings['batch_size']}, "
        f"{settings['workers']} workers, {made['cpu_model']}, {made['cores']} cores, {place}"
    )
