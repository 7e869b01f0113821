"""Plan the rounds of a comparison: every arm once in each round, in random order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

from larder.bench.arms import ARMS
from larder.bench.summarize import AGAIN, NOTHING

ROOFLINES = ("decode", "decode_pil", "stream_from_memory", "disk_read", "store_read")
ROOFLINE_ROUNDS, QUICK_ROOFLINE_ROUNDS = 3, 1
WARM_UP = 0
_PREFERRED = ("stream", "webdataset", "imagefolder_local", "litdata_streaming")


class Entry(NamedTuple):
    """An arm or an upper bound, with a number of workers."""

    kind: Literal["arm", "roofline"]
    name: str
    """Name of the arm, which may end in AGAIN, or of the upper bound."""
    workers: int


class Run(NamedTuple):
    """One run of an entry, in a process of its own."""

    entry: Entry
    round: int
    """Number of the round; 0 is the warm-up."""
    position: int
    """Position in the order of the whole comparison."""


def plan_entries(arms: Sequence[str], worker_counts: Sequence[int], rooflines: Sequence[str]) -> list[Entry]:
    """Return what each round consists of: the arms, one of them again, the arm that costs nothing, upper bounds.

    An arm that ignores the number of workers, and uses all cores, runs once: beside the most workers of the others.
    """
    entries = [Entry("arm", name, workers) for name in arms for workers in _counts_of(name, worker_counts)]
    workers = worker_counts[0]
    repeated = next((name for name in _PREFERRED if name in arms), arms[0])
    entries += [Entry("arm", repeated + AGAIN, _counts_of(repeated, worker_counts)[0]), Entry("arm", NOTHING, workers)]
    return entries + [Entry("roofline", name, workers) for name in rooflines]


def _counts_of(arm: str, worker_counts: Sequence[int]) -> Sequence[int]:
    return worker_counts[-1:] if ARMS[arm].workers == "all cores" else worker_counts


def plan_round(entries: Sequence[Entry], number: int, seed: int, roofline_rounds: int = ROOFLINE_ROUNDS) -> list[Run]:
    """Return the runs of one round, in an order that depends on the seed and the number of the round.

    Upper bounds are left out of the warm-up, and of rounds after `roofline_rounds`. Positions leave gaps for them, so
    that a run's position depends on nothing but its round.
    """
    order = list(entries)
    random.Random(f"{seed} {number}").shuffle(order)
    runs = [Run(entry, number, number * len(order) + at) for at, entry in enumerate(order)]
    return [run for run in runs if run.entry.kind == "arm" or 1 <= number <= roofline_rounds]
