"""How reading is spread: batches over processes, each over threads where it is a store, which answers many at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from larder.batches import batches
from larder.engines import LocalEngine

T = TypeVar("T")
R = TypeVar("R")


class Spread(NamedTuple):
    """So many processes (1: this one), tasks in a batch, and threads for a batch."""

    workers: int
    batch: int
    threads: int

    def __call__(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """`function(task)` for each task, in the order of the tasks. The first failure in that order is raised."""
        run = functools.partial(_run, function, self.threads)
        with LocalEngine(self.workers)(run, batches(tasks, self.batch)) as results:
            for found in results:
                yield from found


def _run(function: Callable[[T], R], threads: int, tasks: Sequence[T]) -> list[R]:
    if threads == 1:
        return [function(task) for task in tasks]
    with ThreadPoolExecutor(threads) as pool:
        try:
            return list(pool.map(function, tasks))
        finally:
            pool.shutdown(cancel_futures=True)
