"""Look up parts of a record, and format its figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from larder.distant.link import recorded_link

Record = Mapping[str, Any]
"""The record of a comparison, or a part of it."""
AGAIN = " (again)"
"""Ends the name of the second run of the A/A arm."""
NO_FIGURE = "–"
"""Stands for what doesn't apply to an arm, or wasn't part of the comparison."""
UNKNOWN = "unknown"
"""Stands for a figure that an arm has, and that couldn't be determined."""
ONE_ROUND = "one round"
"""Stands for the interval of a single round, which has none."""
_ALL_CORES = "all cores"
_WITHOUT_NETWORK = ("tree", "tar", "none")
"""Layouts that are read without a network."""
MAX_LABEL = 32
"""Characters of a label in a plot: with a figure beside it, it fits on a page of 360 pixels."""


def summaries(record: Record) -> list[Record]:
    """Return the summaries of the arms, fastest first."""
    return list(record["summary"]["arms"])


def best_of_each_arm(record: Record) -> list[Record]:
    """Return the summary of each arm with the number of workers at which it is fastest."""
    best: dict[str, Record] = {}
    for one in summaries(record):
        best.setdefault(one["arm"], one)
    return list(best.values())


def has_sweep(record: Record) -> bool:
    """Return whether arms were measured with several numbers of workers."""
    return len({one["workers"] for one in summaries(record)}) > 1


def measured_rounds(record: Record, summary: Record) -> list[Record]:
    """Return the measured rounds of an arm with a number of workers, in order."""
    key = (summary["arm"], summary["workers"])
    return [one for one in record["rounds"] if (one["arm"], one["workers"]) == key and one["round"] > 0]


def rates_of(record: Record, summary: Record) -> list[float]:
    """Return the images per second of each measured round's first epoch."""
    return [one["epochs"][0]["imgs_per_s"] for one in measured_rounds(record, summary)]


def median_round(record: Record, summary: Record) -> Record | None:
    """Return the round with the median rate; of two, the slower one."""
    rounds = sorted(measured_rounds(record, summary), key=lambda one: float(one["epochs"][0]["imgs_per_s"]))
    return rounds[(len(rounds) - 1) // 2] if rounds else None


def label_of(record: Record, arm: str, workers: int) -> str:
    """Return an arm's name for a plot, with its number of workers if several were measured."""
    if not has_sweep(record):
        return shorten(arm, MAX_LABEL)
    return f"{shorten(arm, MAX_LABEL - 6)}, {ran_with(record, arm, workers)}"


def left_out_by_reason(rows: Iterable[tuple[str, str, str]]) -> list[tuple[list[str], str]]:
    """Return the arms that were left out for each reason, and the reason with the command that helps.

    Args:
        rows: Of each arm: its name, the reason, and the command or an empty string.
    """
    groups: dict[str, list[str]] = {}
    for arm, reason, command in rows:
        groups.setdefault(f"{reason}; {command}" if command else reason, []).append(arm)
    return [(arms, reason) for reason, arms in groups.items()]


def workers_of(record: Record, summary: Record) -> str:
    """Return an arm's number of workers for a table. Some libraries ignore it, and use all cores."""
    return _ALL_CORES if _ignores_workers(record, summary["arm"]) else str(summary["workers"])


def ran_with(record: Record, arm: str, workers: int) -> str:
    """Return what an arm ran with, in words."""
    return _ALL_CORES if _ignores_workers(record, arm) else count_workers(workers)


def count_workers(number: int) -> str:
    """Return a number of workers in words."""
    return "1 worker" if number == 1 else f"{number} workers"


def _ignores_workers(record: Record, arm: str) -> bool:
    return any(one["name"] == arm and one.get("workers") == _ALL_CORES for one in record["arms"])


def title_of(record: Record) -> str:
    """Return what a record is about."""
    data, machine = record["data"], record["provenance"]
    return f"Feeding {data['dataset']} on {machine['cores']:g} cores of {machine['cpu_model']}"


def time_of(record: Record) -> str:
    """Return when a record was made, to the minute."""
    return f"{record['provenance']['time_utc'][:16].replace('T', ' ')} UTC"


def runs_of(record: Record) -> int:
    """Return of how many runs a record has the rounds."""
    return len(record.get("runs_utc", ())) or 1


def store_of(record: Record) -> str:
    """Return the store's address, and the link through which it was reached."""
    endpoint, link = str(record["provenance"]["endpoint"]), recorded_link(record["provenance"])
    return f"{endpoint}, through {link.describe()}" if link else endpoint


def shorten(text: str, length: int) -> str:
    """Cut a text to a length, and mark the cut."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def median_or_none(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are known, or None."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def median_of(interval: Record | None) -> float | None:
    """Return the median of an interval; records of earlier versions lack some."""
    return None if interval is None else float(interval["median"])


def number(value: float | None, digits: int = 0) -> str:
    """Format a number with separators of thousands; very large ones with an exponent."""
    if value is None:
        return NO_FIGURE
    return f"{value:.3e}" if abs(value) >= 1e12 else f"{value:,.{digits}f}"


def count(amount: int, noun: str) -> str:
    """Return an amount with its noun, in the plural unless it is 1."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"


def significant(value: float | None) -> str:
    """Format a number with three significant digits, without an exponent for common sizes."""
    if value is None:
        return NO_FIGURE
    if value == 0 or abs(value) >= 100:
        return number(value)
    digits = next((digits for limit, digits in ((10, 1), (1, 2), (0.1, 3), (0.01, 4)) if abs(value) >= limit), 6)
    return number(value, digits)


def interval(value: Record | None, digits: int = 0) -> str:
    """Format the ends of an interval."""
    return NO_FIGURE if value is None else f"{number(value['low'], digits)} to {number(value['high'], digits)}"


def ends_of(value: Record, rounds: int, digits: int = 0) -> str:
    """Format the ends of an interval over a number of rounds; a single one has no interval."""
    return interval(value, digits) if rounds > 1 else ONE_ROUND


def warm_rounds(record: Record, summary: Record) -> int:
    """Return in how many rounds an arm measured a second epoch."""
    return sum(len(one["epochs"]) > 1 for one in measured_rounds(record, summary))


def repeated_rounds(record: Record) -> int:
    """Return how many rounds have both runs of the A/A test."""
    repeated = record["summary"]["repeated"]
    if repeated is None:
        return 0
    runs = [(one["arm"], one["workers"], one["round"]) for one in record["rounds"] if one["round"] > 0]
    again = {(workers, number) for arm, workers, number in runs if arm == repeated["arm"] + AGAIN}
    return len(again & {(workers, number) for arm, workers, number in runs if arm == repeated["arm"]})


def size(value: float | None) -> str:
    """Format a number of bytes with a decimal unit."""
    if value is None:
        return NO_FIGURE
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{number(value)} B" if unit == "B" else f"{significant(value)} {unit}"
        value /= 1000
    return f"{significant(value)} TB"


def percent(value: float | None) -> str:
    """Format a share in percent. A share below one never shows as 100%."""
    if value is None:
        return NO_FIGURE
    return ">99%" if 0.995 <= value < 1 else f"{value:.0%}"


def yes(value: bool | None) -> str:
    """Format a truth value."""
    return NO_FIGURE if value is None else "yes" if value else "NO"


def known(text: str, *, applies: bool = True) -> str:
    """Return a formatted figure. One that is missing although it applies is unknown.

    Example:
        >>> known(size(None), applies=True), known(size(None), applies=False)
        ('unknown', '–')
    """
    return UNKNOWN if applies and text == NO_FIGURE else text


def uses_network(record: Record, arm: str) -> bool:
    """Return whether an arm reads its data over a network."""
    layouts = {one["name"]: one["layout"] for one in record["arms"]}
    return layouts.get(arm) not in _WITHOUT_NETWORK


def traffic_of(record: Record, summary: Record) -> tuple[str, str]:
    """Return an arm's network bytes per image, and its requests per 1,000 images."""
    applies = uses_network(record, summary["arm"])
    network, requests = size(summary["network_bytes_per_img"]), significant(summary["requests_per_1000_imgs"])
    return known(network, applies=applies), known(requests, applies=applies)


def exactly_once(summary: Record) -> str:
    """Return whether each sample came once in each epoch: unknown without reference, and nothing for parts of one."""
    return known(yes(summary["exactly_once"]), applies=summary["order_entropy"] is None)
