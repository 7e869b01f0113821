"""Check whether two runs agree: the same ranking, and medians that differ by less than their intervals are wide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from larder.bench.report.facts import Record, number


class Agreement(NamedTuple):
    """How far the arms of two records agree."""

    arms: int
    """Arms that both records have, each number of workers for itself."""
    swapped: list[tuple[str, str]]
    """Pairs of arms that rank one way in one record, and the other way in the other."""
    apart: list[str]
    """Arms whose medians differ by more than the wider of their intervals, with both figures."""

    @property
    def holds(self) -> bool:
        """Whether both runs rank the arms the same, and all medians are near enough."""
        return not self.swapped and not self.apart


def find_agreement(pairs: Sequence[tuple[Record, Record]]) -> Agreement:
    """Return how far two runs agree.

    Args:
        pairs: Of each arm that both have, its summaries in the earlier and the later record.
    """
    swapped = [
        (_named(one), _named(other))
        for at, (one, _) in enumerate(pairs)
        for other, _ in pairs[at + 1 :]
        if _is_swapped(pairs, one, other)
    ]
    return Agreement(len(pairs), swapped, [_describe(*pair) for pair in pairs if _is_apart(*pair)])


def describe(agreement: Agreement) -> str:
    """Return the result in a sentence."""
    if agreement.holds:
        ranks = f"both rank {agreement.arms} arms the same, and " if agreement.arms > 1 else ""
        return (
            f"The two runs agree: {ranks}the medians of each arm differ by less than the wider of its two 95% "
            "intervals."
        )
    faults = [f"{one} and {other} change places" for one, other in agreement.swapped] + agreement.apart
    return f"The two runs don't agree: {'; '.join(faults)}."


def _is_swapped(pairs: Sequence[tuple[Record, Record]], one: Record, other: Record) -> bool:
    later = {_named(before): _median(after) for before, after in pairs}
    return (_median(one) - _median(other)) * (later[_named(one)] - later[_named(other)]) < 0


def _is_apart(before: Record, after: Record) -> bool:
    return abs(_median(after) - _median(before)) > max(_width(before), _width(after))


def _describe(before: Record, after: Record) -> str:
    return (
        f"the medians of {_named(before)}, {number(_median(before))} and {number(_median(after))} images/s, differ by "
        f"more than the wider of its intervals, {number(max(_width(before), _width(after)))}"
    )


def _median(summary: Record) -> float:
    return float(summary["imgs_per_s"]["median"])


def _width(summary: Record) -> float:
    return float(summary["imgs_per_s"]["high"] - summary["imgs_per_s"]["low"])


def _named(summary: Record) -> str:
    return f"{summary['arm']} with {summary['workers']} workers"
