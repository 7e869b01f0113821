"""How reading is spread: batches over workers, each over threads where it is a store, which answers many at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from larder.batches import batches
from larder.engines import Engine

T = TypeVar("T")
R = TypeVar("R")


class Spread(NamedTuple):
    """How many small tasks are done."""

    engine: Engine
    """What does the batches."""
    batch: int
    """Tasks that a worker takes at a time."""
    threads: int
    """That share a batch."""

    def __call__(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """`function(task)` for each task, in the order of the tasks. The first failure in that order is raised."""
        for found in self.in_batches(function, tasks):
            yield from found

    def in_batches(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[list[R]]:
        """The same, the results of a batch at a time."""
        run = functools.partial(_run, function, self.threads)
        with self.engine(run, batches(tasks, self.batch)) as results:
            yield from results


def _run(function: Callable[[T], R], threads: int, tasks: Sequence[T]) -> list[R]:
    if threads == 1:
        return [function(task) for task in tasks]
    with ThreadPoolExecutor(threads) as pool:
        try:
            return list(pool.map(function, tasks))
        finally:
            pool.shutdown(cancel_futures=True)
