"""Records side by side: each arm's throughput with its spread, and how many times faster the fastest one is."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from larder.errors import InputError
from services.bench.record import passes_of


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
        lines = []
        for other in others:
            low, high = best.rates[0] / other.rates[-1], best.rates[-1] / other.rates[0]
            lines.append(f"{best.name} is {best.median / other.median:.2f} times as fast as {other.name}"
                         + (f" ({low:.2f} to {high:.2f})" if low < high else " (one run each)")
                         + ("; their spreads overlap: not told apart" if low <= 1 else ""))  # fmt: skip
        return "\n".join(lines)


def read_records(folder: Path) -> list[dict[str, Any]]:
    """bench's records in a folder, oldest first; those of trainings are left out.

    Raises InputError when there is none, or when one can't be read.
    """
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.get("kind") != "train":
                records.append((record["provenance"]["time_utc"], record))
        except (ValueError, KeyError, AttributeError) as error:
            raise InputError(
                f"{path} is no record of bench: {error!r}", next_step="move it out of the folder of records"
            ) from None
    if not records:
        raise InputError(
            f"{folder} has no records to compare",
            next_step="measure at least two arms: `make bench ARM=imagefolder_local`",
        )
    return [record for _, record in sorted(records, key=lambda each: str(each[0]))]


def compare(records: Iterable[dict[str, Any]]) -> list[Comparison]:
    """Group records by their circumstances, most records first; each pass counts as an arm of its own."""
    groups: dict[str, dict[str, list[float]]] = {}
    sizes: dict[str, int] = {}
    for record in records:
        where = circumstances(record)
        sizes[where] = sizes.get(where, 0) + 1
        for figures in passes_of(record):
            several = f" ({figures['pass']})" if record["then"] else ""
            groups.setdefault(where, {}).setdefault(f"{_loop(record)}{several}", []).append(figures["imgs/s"])
    found = []
    for where in sorted(groups, key=lambda each: -sizes[each]):
        arms = [Arm(name, sorted(rates)) for name, rates in groups[where].items()]
        found.append(Comparison(where, sorted(arms, key=lambda arm: -arm.median)))
    return found


def _loop(record: dict[str, Any]) -> str:
    """The arm, and who read for it where there is a choice."""
    loader = record["settings"]["webdataset_loader"] if record["arm"] == "webdataset" else ""
    return f"{record['arm']} by {loader}" if loader == "webdataset" else str(record["arm"])


def circumstances(record: dict[str, Any]) -> str:
    """What must be the same for two rates to be compared: the data, the settings of the loop, the machine."""
    settings, dataset, made = record["settings"], record["dataset"], record["provenance"]
    samples = dataset["samples"][dataset["split"]]
    batches = f"{settings['batches']} batches" if settings["batches"] else "a whole epoch"
    return (
        f"{dataset['name']}, {samples:,} images of {dataset['split']}, {batches} of {settings['batch_size']}, "
        f"{settings['workers']} workers, {made['cpu_model']}, {made['cores']} cores"
    )
