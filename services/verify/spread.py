"""How reading is spread: batches over processes, each over threads where it is a store, which answers many at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from larder.batches import batches
from larder.engines.local import LocalEngine

T = TypeVar("T")
R = TypeVar("R")


class Spread(NamedTuple):
    """How a link is read."""

    workers: int
    """Processes; with 1, it is this one."""
    alone_seconds: float
    """How long this one works before it starts them."""
    batch: int
    """Tasks that a process takes at a time."""
    threads: int
    """That share a batch."""

    def __call__(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """`function(task)` for each task, in the order of the tasks. The first failure in that order is raised."""
        run = functools.partial(_run, function, self.threads)
        with LocalEngine(self.workers, self.alone_seconds)(run, batches(tasks, self.batch)) as results:
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
