"""Compute medians with intervals, and paired ratios."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence

from larder.bench.comparison_parts import Interval

RESAMPLES = 2000
LEVEL = 0.95
_SEED = 20260101  # the same rounds give the same interval


def median_interval(values: Sequence[float]) -> Interval:
    """Return the median of at least one value, with its 95% percentile bootstrap interval.

    Example:
        >>> median_interval([10.0, 10.0, 10.0])
        Interval(median=10.0, low=10.0, high=10.0)
    """
    draw = random.Random(_SEED)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES))
    cut = int(RESAMPLES * (1 - LEVEL) / 2)
    return Interval(
        median=_round(statistics.median(values)), low=_round(medians[cut]), high=_round(medians[RESAMPLES - 1 - cut])
    )


def paired_ratios(rates: Mapping[int, float], others: Mapping[int, float]) -> list[float]:
    """Return the ratio of two arms' rates in each round that both have, in order of the rounds.

    Example:
        >>> paired_ratios({1: 20.0, 2: 30.0, 3: 50.0}, {1: 10.0, 2: 10.0})
        [2.0, 3.0]
    """
    return [_round(rates[number] / others[number]) for number in sorted(rates.keys() & others.keys())]


def _round(number: float) -> float:
    """Round to five significant digits: more than the precision of any measurement."""
    return float(f"{number:.5g}")
