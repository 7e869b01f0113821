"""Keep the time of a quick comparison: it answers within three minutes, and says what it left out for that."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from larder.bench.arms import ARMS
from larder.bench.comparison.plan import Run

QUICK_SECONDS = 180.0
"""A quick comparison has answered by then."""
CLOSING_SECONDS = 15.0
"""What summary and record may take of it; all processes have ended before."""
RUN_SECONDS = 30.0
"""Time limit of a run of a quick comparison, so that an arm that hangs leaves time for the others."""
REFERENCE_SECONDS = 40.0
"""Time limit for decoding the reference of a quick comparison."""
WARM_UP_SHARE = 0.5
"""Share of the time after which a quick comparison warms up no further arm: the rest is for measuring."""
PASS_SECONDS, MIN_PASS_SECONDS = 3.0, 0.5
"""Duration of a pass of a quick comparison, and to what it is shortened if there are many arms."""
_SPARE = 0.15
"""Share of the time that isn't planned, since runs take longer than their warm-ups told."""
_BOUND_SECONDS = 4.0


class TimeBudget:
    """The time of a comparison's processes, which begins when this is made.

    Args:
        seconds: The time; infinite without a limit.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self._began, self._seconds = time.monotonic(), seconds

    @classmethod
    def of_comparison(cls, *, quick: bool) -> TimeBudget:
        """Return the time of a comparison that begins now."""
        return cls(QUICK_SECONDS - CLOSING_SECONDS if quick else math.inf)

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return math.isfinite(self._seconds)

    def spent(self) -> float:
        """Return the seconds since it began."""
        return time.monotonic() - self._began

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._seconds - self.spent()

    def deadline(self, seconds: float) -> float:
        """Return when a process must end, by the monotonic clock: after its own limit, or when the time is over."""
        return min(time.monotonic() + seconds, self._began + self._seconds) if self.is_limited else math.inf

    def allows_warm_up(self) -> bool:
        """Return whether enough time is left to measure what is warmed up now."""
        return self.left() > (1 - WARM_UP_SHARE) * self._seconds if self.is_limited else True


def by_importance(runs: Sequence[Run]) -> list[Run]:
    """Return a quick comparison's first runs; what is dropped first comes last.

    `stream` comes first, then one arm for each further layout, since which layout is best is the question. Then come
    larder's other arms, those that tell how sure the figures are, and those of other libraries. A warm-up isn't
    measured, so its order needs no chance. Nor does that of a first round that may be cut short.
    """
    counts = sorted({run.entry.workers for run in runs})
    names = sorted({run.entry.name for run in runs if run.entry.name in ARMS}, key=lambda name: _rank(name, {}))
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(ARMS[name].layout, name)
    return sorted(runs, key=lambda run: (counts.index(run.entry.workers), *_rank(run.entry.name, first)))


def _rank(name: str, first: Mapping[str, str]) -> tuple[int, bool, bool]:
    """Return an entry's place in the order. `first` has the arm that stands for each layout."""
    is_peer = name in ARMS and ARMS[name].is_peer
    if name in first.values():
        group = 0
    elif name not in ARMS:  # the A/A arm again, and the arm that costs nothing
        group = 2
    else:
        group = 3 if is_peer else 1
    return group, is_peer, name != "stream"


def pass_seconds(left: float, overheads: Sequence[float], bounds: int) -> float:
    """Return how long each arm's pass may take for a round to fit into the time.

    Args:
        left: Seconds that are left.
        overheads: Of each arm, the seconds of its warm-up outside of the pass: starting, opening, ending.
        bounds: Number of upper bounds, which are measured in the same round.

    Example:
        >>> pass_seconds(100.0, [1.0, 1.0], 0)
        3.0
    """
    for_passes = left * (1 - _SPARE) - sum(overheads) - bounds * _BOUND_SECONDS
    return min(max(for_passes / max(len(overheads), 1), MIN_PASS_SECONDS), PASS_SECONDS)
