"""Embed records in a page as JSON. What doesn't fit into a page is left out, and the page says so."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from larder.bench.report import facts
from larder.bench.report.read import RecordFile

_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


class Embedded(NamedTuple):
    """Elements with records."""

    html: str
    left_out: str
    """What they leave out; empty if they are complete."""


def embed_records(records: Sequence[RecordFile], max_bytes: int) -> Embedded:
    """Return elements with the records as JSON, complete if that fits.

    A shortened record still follows the schema: lists are empty.

    Args:
        records: The records.
        max_bytes: Limit of the elements' size.
    """
    for left_out, shorten in _SHORTENED:
        html = "".join(_element(at, shorten(record.content)) for at, record in enumerate(records))
        if len(html) <= max_bytes:  # ASCII: a byte for each character
            return Embedded(html, left_out)
    return Embedded("", "everything: the records are too large for a page")


def _element(at: int, record: dict[str, Any]) -> str:
    """Return a script element, which browsers don't run, since its type is JSON."""
    text = json.dumps(record, separators=(",", ":"))
    for character, escaped in _UNSAFE.items():
        text = text.replace(character, escaped)
    name = "record" if at == 0 else f"record-{at + 1}"
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def _keep_plotted_timelines(record: dict[str, Any]) -> dict[str, Any]:
    plotted = [facts.median_round(record, one) for one in facts.best_of_each_arm(record)]
    kept = {(one["arm"], one["workers"], one["round"]) for one in plotted if one}
    shortened = copy.deepcopy(record)
    for one in shortened["rounds"]:
        is_plotted = (one["arm"], one["workers"], one["round"]) in kept
        for epoch in one["epochs"][1:] if is_plotted else one["epochs"]:
            _drop_timeline(epoch)
    return shortened


def _without_timelines(record: dict[str, Any]) -> dict[str, Any]:
    shortened = copy.deepcopy(record)
    for epoch in _epochs(shortened):
        _drop_timeline(epoch)
    return shortened


def _without_rounds(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "rounds": []}


def _epochs(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (epoch for one in record["rounds"] for epoch in one["epochs"])


def _drop_timeline(epoch: dict[str, Any]) -> None:
    epoch["timeline"] = {"t_s": [], "bytes_per_s": [], "images_per_s": []}


def _complete(record: dict[str, Any]) -> dict[str, Any]:
    return record


_SHORTENED: tuple[tuple[str, Callable[[dict[str, Any]], dict[str, Any]]], ...] = (
    ("", _complete),
    ("rates over time of rounds that aren't plotted", _keep_plotted_timelines),
    ("rates over time", _without_timelines),
    ("the rounds", _without_rounds),
)
"""How records are shortened, the mildest way first."""
