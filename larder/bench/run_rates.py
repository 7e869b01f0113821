"""Compare records: each arm's throughput with its spread, and the speed-up of the fastest arm."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from larder.bench.run_record import passes_of
from larder.distant.link import recorded_link
from larder.errors import InputError
from larder.terminal import join_lines

MEASURE_TWO_ARMS = "measure at least two arms"
"""Next step of an error."""
THROUGH = " through "


class ArmRates(NamedTuple):
    """Measurements of one arm, or of one pass of it."""

    name: str
    rates: list[float]
    """Images per second of each run, sorted."""

    @property
    def median(self) -> float:
        """Median of images per second."""
        return statistics.median(self.rates)


class ComparableArms(NamedTuple):
    """Arms measured under the same circumstances, fastest first."""

    circumstances: str
    arms: list[ArmRates]

    def verdict(self) -> str:
        """Return the fastest arm and its speed-up over each other arm.

        The speed-up is the ratio of medians, with the lowest and highest ratio of single runs.
        """
        best, *rest = self.arms
        if not rest:
            return f"only {best.name} was measured under these circumstances: measure another arm"
        rows = []
        for other in rest:
            low, high = best.rates[0] / other.rates[-1], best.rates[-1] / other.rates[0]
            rows.append(
                f"{best.name} is {best.median / other.median:.2f} times as fast as {other.name}"
                + (f" ({low:.2f} to {high:.2f})" if low < high else " (one run each)")
                + ("; no significant difference (intervals overlap)" if low <= 1 else "")
            )
        return join_lines(*rows)


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return bench's records in a folder, oldest first, without those of trainings and comparisons.

    Raises:
        InputError: If there is no record, or one can't be read.
    """
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.get("kind") != "train" and "schema" not in record:
                circumstances(record)
                _runs(record)  # both calls validate all fields that are compared
                records.append((record["provenance"]["time_utc"], record))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(
                f"{path} is not a record of bench: {error!r}", next_step="move it out of the folder of records"
            ) from None
    if not records:
        raise InputError(
            f"{folder} has no records to compare",
            next_step=MEASURE_TWO_ARMS,
        )
    return [record for _, record in sorted(records, key=lambda each: str(each[0]))]


def group_records(records: Iterable[dict[str, Any]]) -> list[ComparableArms]:
    """Group records by their circumstances, largest group first. Each pass counts as a separate arm."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(circumstances(record), []).append(record)
    return [
        ComparableArms(where, _arms(groups[where])) for where in sorted(groups, key=lambda each: -len(groups[each]))
    ]


class _PassRate(NamedTuple):
    """The fields of one pass by which records are compared."""

    arm: str
    """The arm, with the shard reader if there is a choice, and the pass if there are several."""
    store: str
    """Host of the store, with the link to it; empty for an arm that uses no network."""
    manifest: str
    rate: float


def _runs(record: dict[str, Any]) -> list[_PassRate]:
    """Return each pass of a record. Raise KeyError or TypeError if a field is missing."""
    loader = record["settings"]["webdataset_loader"] if record["arm"] == "webdataset" else ""
    arm_name = f"{record['arm']} by {loader}" if loader == "webdataset" else str(record["arm"])
    store, link = urlsplit(record["settings"]["s3_endpoint_url"]).netloc or "AWS", recorded_link(record["provenance"])
    where = f"{store}{THROUGH}{link.describe()}" if link else store
    return [
        _PassRate(
            f"{arm_name} ({figures['pass']})" if record["then"] else arm_name,
            "" if figures["network_bytes"] is None else where,
            record["dataset"]["manifest_sha256"][:8],
            figures["imgs/s"],
        )
        for figures in passes_of(record)
    ]


def _arms(records: Iterable[dict[str, Any]]) -> list[ArmRates]:
    """Return the arms in records of the same circumstances, fastest first.

    Runs from another store, through another link, or of another packing count as another arm. The name includes the
    store or manifest if there are several, and the link.
    """
    runs = [run for record in records for run in _runs(record)]
    stores = {run.store for run in runs if run.store}
    manifests = {run.arm: {other.manifest for other in runs if other.arm == run.arm} for run in runs}
    rates: dict[str, list[float]] = {}
    for run in runs:
        origin = f" from {run.store}" if run.store and (len(stores) > 1 or THROUGH in run.store) else ""
        data = f", manifest {run.manifest}" if len(manifests[run.arm]) > 1 else ""
        rates.setdefault(f"{run.arm}{origin}{data}", []).append(run.rate)
    return sorted((ArmRates(name, sorted(samples)) for name, samples in rates.items()), key=lambda arm: -arm.median)


def circumstances(record: dict[str, Any]) -> str:
    """Describe what must be equal for two rates to be comparable: data, loop settings, machine."""
    settings, dataset, host = record["settings"], record["dataset"], record["provenance"]
    samples = dataset["samples"][dataset["split"]]
    batches = f"{settings['batches']} batches" if settings["batches"] else "a whole epoch"
    environment = "in a container" if host["in_container"] else "on the host"
    return (
        f"{dataset['name']}, {samples:,} images of {dataset['split']}, {batches} of {settings['batch_size']}, "
        f"{settings['workers']} workers, {host['cpu_model']}, {host['cores']} cores, {environment}"
    )
