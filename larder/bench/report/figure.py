"""Define a plot with what belongs to it."""

from __future__ import annotations

from typing import NamedTuple

from larder.bench.report import facts
from larder.bench.report.facts import Record
from larder.bench.report.tables import Table

MAX_PLOTTED = 40
"""Rows of a plot that are drawn; its table has more."""


class Figure(NamedTuple):
    """A plot, what it shows, and its table."""

    name: str
    """Identifies it in the page."""
    title: str
    lead: str
    """How to read it."""
    legend: tuple[tuple[str, str], ...]
    """Kinds of marks with their meanings."""
    svg: str
    table: Table


def workers_note(record: Record) -> str:
    """Return a sentence on the number of workers, for plots that show each arm once."""
    has_choice = facts.has_sweep(record)
    return " Each arm has the number of workers with which it is fastest." if has_choice else ""
