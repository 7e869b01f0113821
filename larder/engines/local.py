"""The local engine: processes on this machine."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import TypeVar

from larder.errors import ResourceError

T = TypeVar("T")
R = TypeVar("R")

TASKS_IN_FLIGHT_PER_WORKER = 4
GRACE_SECONDS = 2.0
"""For workers to call off what they have under way."""


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
        context = _forkserver(function)
        pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_start_worker)
        try:
            yield _in_order(pool, partial(_call, function), tasks, self.workers * TASKS_IN_FLIGHT_PER_WORKER)
        except BaseException:
            _drop_work()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _forkserver(function: Callable[[T], R]) -> BaseContext:
    """What starts the workers: it forks a process that has imported what `function` needs, and done nothing else.

    Forks of this very process would have the locks that other threads hold, and clients that must not be shared. New
    interpreters would each import all of it anew, in the time in which a thousand images are packed.
    """
    context = multiprocessing.get_context("forkserver")
    main = getattr(sys.modules["__main__"], "__spec__", None)
    work = function.func if isinstance(function, partial) else function
    needed = [work.__module__, *getattr(work, "imports", ())]
    context.set_forkserver_preload([main.name, *needed] if main else needed)
    return context


def _drop_work() -> None:
    """End the workers now: nobody wants what they have under way, and a pack may take half a minute."""
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.terminate()
    wait_until = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.join(max(0.0, wait_until - time.monotonic()))
        worker.kill()


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
    """Leave Ctrl-C to the parent, which sends SIGTERM: that ends an idle worker at once, and without a word."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _end_worker(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the pool sends one more
    raise SystemExit  # and not an end at once, so that uploads in parts are called off


def _call(function: Callable[[T], R], task: T) -> R:
    signal.signal(signal.SIGTERM, _end_worker)
    try:
        return function(task)
    except SystemExit:
        os._exit(1)  # threads that still read would hold it up
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_with_parent() -> None:
    """Have this process end at once when its parent dies, even by SIGKILL: an orphan must not go on writing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
