"""The local engine: processes on this machine."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TypeVar

from larder.errors import ResourceError

T = TypeVar("T")
R = TypeVar("R")

TASKS_IN_FLIGHT_PER_WORKER = 4


class LocalEngine:
    """Maps over `workers` processes; with one worker, in this very process."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    @contextmanager
    def __call__(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Iterator[R]]:
        """See `larder.engines.Engine`."""
        if self.workers == 1:
            yield map(function, tasks)
            return
        # spawn: a fork would copy locks that other threads hold, and clients that must not be shared
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_start_worker)
        try:
            yield _in_order(pool, function, tasks, self.workers * TASKS_IN_FLIGHT_PER_WORKER)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, function: Callable[[T], R], tasks: Iterable[T], ahead: int) -> Iterator[R]:
    pending: deque[Future[R]] = deque()
    remaining = iter(tasks)
    try:
        pending.extend(pool.submit(function, task) for task in itertools.islice(remaining, ahead))
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(function, task) for task in itertools.islice(remaining, 1))
    except BrokenProcessPool as error:
        # The pool ends its workers, but not one that it was just starting, and then waits for that for good.
        for worker in multiprocessing.active_children():
            worker.kill()
        raise ResourceError(
            "a worker process was killed, most likely because memory ran out",
            next_step="give the stage more memory or fewer workers (LARDER_WORKERS), then run again: it resumes",
        ) from error


def _start_worker() -> None:
    """Leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """Have this process end at once when its parent dies, even by SIGKILL: an orphan must not go on writing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
