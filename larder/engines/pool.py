"""Manage worker processes on this machine. Import this module only when needed, since that takes a while."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from typing import Any, Generic, TypeVar

from larder.errors import ResourceError
from larder.third_party import WarningReporter, current_warning_reporter

T = TypeVar("T")
R = TypeVar("R")

TASKS_IN_FLIGHT_PER_WORKER = 4
GRACE_SECONDS = 2.0
"""Time for workers to cancel their tasks, such as multipart uploads."""


class Pool(Generic[T, R]):
    """Processes that run one function. Another thread may cancel the start."""

    def __init__(self, workers: int, function: Callable[[T], R]) -> None:
        self._workers, self._function = workers, function
        self._executor: ProcessPoolExecutor | None = None

    def start(self, cancelled: threading.Event) -> None:
        """Start the fork server and the first worker, unless `cancelled` is set. Other workers are forked on demand."""
        start_server(_modules_of(self._function))
        context = multiprocessing.get_context("forkserver")
        try:
            self._executor = ProcessPoolExecutor(
                self._workers, mp_context=context, initializer=_init_worker, initargs=(current_warning_reporter(),)
            )
        except OSError as error:  # the constructor creates semaphores and needs no other system resource
            raise ResourceError(
                f"worker processes can't be started: /dev/shm doesn't take their semaphores ({error.strerror})",
                next_step="make /dev/shm writable (in a container: a tmpfs there, or --shm-size), or set "
                "LARDER_WORKERS=1, then run again",
            ) from error
        if not cancelled.is_set():
            self._executor.submit(int)

    def map(self, tasks: Iterator[T]) -> Iterator[R]:
        """Yield the results in the order of the tasks, with a bounded number of tasks in flight."""
        if self._executor is None:
            raise RuntimeError("not started")
        max_in_flight = self._workers * TASKS_IN_FLIGHT_PER_WORKER
        return _in_order(self._executor, partial(_call, self._function), tasks, max_in_flight)

    def cancel(self) -> None:
        """Make a running `start` fail by killing the fork server, whose imports may take seconds."""
        server = getattr(forkserver, "_forkserver", None)
        pid: int | None = getattr(server, "_forkserver_pid", None)  # no public attribute
        if pid is not None:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # WNOWAIT leaves the exit status to the next start

    def close(self, at_once: bool) -> None:
        """Stop the workers. With `at_once`, don't wait for their current tasks."""
        if at_once:
            _terminate_workers()
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)


def start_server(modules: Sequence[str]) -> None:
    """Start the fork server without waiting for it. It imports `modules`, and each worker is forked from it.

    Forking this process instead would copy locks that other threads hold, and clients that must not be shared. Spawning
    interpreters would repeat the imports in each worker, which takes as long as packing a thousand images.
    """
    main = getattr(sys.modules["__main__"], "__spec__", None)
    preload = ["larder.engines.fork_server", *([main.name] if main else []), *modules]
    multiprocessing.set_forkserver_preload(preload)  # only the first call counts
    resource_tracker.ensure_running()  # else the fork server starts it, and SIGINT reaches it
    # Workers inherit the blocked SIGINT. This process handles Ctrl-C and sends SIGTERM, which ends idle workers
    # at once and silently.
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)


def _modules_of(function: Any) -> list[str]:
    """Return the modules that define a function and the arguments bound to it."""
    if not isinstance(function, partial):
        return [function.__module__]
    bound = (value for value in function.args if hasattr(value, "__module__"))
    return [name for part in (function.func, *bound) for name in _modules_of(part)]


def _terminate_workers() -> None:
    """Stop the workers without waiting for their tasks: a pack may take half a minute."""
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.terminate()
    wait_until = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.join(max(0.0, wait_until - time.monotonic()))
        worker.kill()


def _in_order(
    pool: ProcessPoolExecutor, function: Callable[[T], R], tasks: Iterator[T], max_in_flight: int
) -> Iterator[R]:
    pending: deque[Future[R]] = deque()
    try:
        pending.extend(pool.submit(function, task) for task in itertools.islice(tasks, max_in_flight))
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(function, task) for task in itertools.islice(tasks, 1))
    except BrokenProcessPool as error:
        # The pool stops its workers, but not one that is just starting; it would wait forever for that one.
        for worker in multiprocessing.active_children():
            worker.kill()
        raise ResourceError(
            "a worker process was killed, most likely because memory ran out",
            next_step="give the stage more memory or fewer workers (LARDER_WORKERS), then run again: it resumes",
        ) from error


def _end_worker(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the pool sends a second one
    raise SystemExit  # unwinds the stack, so that multipart uploads are aborted


def _call(function: Callable[[T], R], task: T) -> R:
    signal.signal(signal.SIGTERM, _end_worker)
    try:
        return function(task)
    except SystemExit:
        os._exit(1)  # don't wait for threads that still read
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _init_worker(warning_reporter: WarningReporter | None) -> None:
    """Initialize a worker: end with the parent, and report warnings."""
    end_worker_with_parent()
    if warning_reporter is not None:
        warning_reporter.install()


def end_worker_with_parent() -> None:
    """Exit at once when the parent process dies, even by SIGKILL, so that no orphan goes on writing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
