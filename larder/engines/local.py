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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
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

    def prepare(self, modules: Sequence[str]) -> None:
        """See `larder.engines.Engine`: start a process that imports what the work needs, and is forked for each worker.

        Forks of this very process would have the locks that other threads hold, and clients that must not be shared.
        New interpreters would each import all of it anew, in the time in which a thousand images are packed.
        """
        if self.workers == 1:
            return
        main = getattr(sys.modules["__main__"], "__spec__", None)
        multiprocessing.set_forkserver_preload([*([main.name] if main else []), *modules])  # the first time counts
        resource_tracker.ensure_running()  # else it is started with the other, and lets SIGINT through
        # Its forks, too, leave Ctrl-C to this process, which sends SIGTERM: that ends an idle one at once, silently.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @contextmanager
    def __call__(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Iterator[R]]:
        """See `larder.engines.Engine`."""
        if self.workers == 1:
            yield map(function, tasks)
            return
        self.prepare([(function.func if isinstance(function, partial) else function).__module__])
        context = multiprocessing.get_context("forkserver")
        pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=end_with_parent)
        try:
            yield _in_order(pool, partial(_call, function), tasks, self.workers * TASKS_IN_FLIGHT_PER_WORKER)
        except BaseException:
            _drop_work()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


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
