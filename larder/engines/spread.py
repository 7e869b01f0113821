"""Run many small tasks: batches of them on an engine's workers, and each batch on several threads."""

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
    """A way to run many small tasks. Several threads per batch pay off for stores, which serve requests in parallel."""

    engine: Engine
    """Runs the batches."""
    batch: int
    """Number of tasks per batch."""
    threads: int
    """Number of threads per batch."""

    def __call__(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Yield `function(task)` for each task, in the order of the tasks. Raise the first failure in that order."""
        for results in self.in_batches(function, tasks):
            yield from results

    def in_batches(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[list[R]]:
        """Yield the results of one batch at a time; see `__call__`."""
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
