"""Worker processes on this machine. Imported only where they are needed: it takes a while."""

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
from larder.third_party import Told, told

T = TypeVar("T")
R = TypeVar("R")

TASKS_IN_FLIGHT_PER_WORKER = 4
GRACE_SECONDS = 2.0
"""For workers to call off what they have under way."""


class Pool(Generic[T, R]):
    """Processes that run one function. Another thread may cancel their start."""

    def __init__(self, workers: int, function: Callable[[T], R]) -> None:
        self._workers, self._function = workers, function
        self._executor: ProcessPoolExecutor | None = None

    def start(self, unwanted: threading.Event) -> None:
        """Wait for the first worker, unless they are `unwanted`; the others are forked as there is work for them."""
        start_server(_modules_of(self._function))
        context = multiprocessing.get_context("forkserver")
        try:
            self._executor = ProcessPoolExecutor(
                self._workers, mp_context=context, initializer=_begin_worker, initargs=(told(),)
            )
        except OSError as error:  # it makes semaphores, which is all that it needs of the system by now
            raise ResourceError(
                f"worker processes can't be started: /dev/shm doesn't take their semaphores ({error.strerror})",
                next_step="make /dev/shm writable (in a container: a tmpfs there, or --shm-size), or set "
                "LARDER_WORKERS=1, then run again",
            ) from error
        if not unwanted.is_set():
            self._executor.submit(int)

    def map(self, tasks: Iterator[T]) -> Iterator[R]:
        """The results in the order of the tasks, of which a bounded number is taken ahead."""
        if self._executor is None:
            raise RuntimeError("not started")
        ahead = self._workers * TASKS_IN_FLIGHT_PER_WORKER
        return _in_order(self._executor, partial(_call, self._function), tasks, ahead)

    def cancel(self) -> None:
        """Have `start` fail, which waits for imports that may take seconds: end the server that does them."""
        server = getattr(forkserver, "_forkserver", None)
        pid: int | None = getattr(server, "_forkserver_pid", None)  # there is no public name for it
        if pid is not None:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # the next start finds it ended, and takes its status

    def close(self, at_once: bool) -> None:
        """End the workers; at once is without waiting for what they are doing."""
        if at_once:
            _drop_work()
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)


def start_server(modules: Sequence[str]) -> None:
    """Start a process that imports what the work needs, and is forked for each worker; it isn't waited for.

    Forks of this very process would have the locks that other threads hold, and clients that must not be shared.
    New interpreters would each import all of it anew, in the time in which a thousand images are packed.
    """
    main = getattr(sys.modules["__main__"], "__spec__", None)
    multiprocessing.set_forkserver_preload([*([main.name] if main else []), *modules])  # the first time counts
    resource_tracker.ensure_running()  # else it is started with the other, and lets SIGINT through
    # Its forks, too, leave Ctrl-C to this process, which sends SIGTERM: that ends an idle one at once, silently.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _modules_of(function: Any) -> list[str]:
    """The modules that a function and what is bound to it come from."""
    if not isinstance(function, partial):
        return [function.__module__]
    bound = (value for value in function.args if hasattr(value, "__module__"))
    return [name for part in (function.func, *bound) for name in _modules_of(part)]


def _drop_work() -> None:
    """End the workers now: nobody wants what they have under way, and a pack may take half a minute."""
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.terminate()
    wait_until = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.join(max(0.0, wait_until - time.monotonic()))
        worker.kill()


def _in_order(pool: ProcessPoolExecutor, function: Callable[[T], R], tasks: Iterator[T], ahead: int) -> Iterator[R]:
    pending: deque[Future[R]] = deque()
    try:
        pending.extend(pool.submit(function, task) for task in itertools.islice(tasks, ahead))
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(function, task) for task in itertools.islice(tasks, 1))
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


def _begin_worker(told: Told | None) -> None:
    """Begin a worker, whose warnings somebody may be told of."""
    end_with_parent()
    if told is not None:
        told.listen()


def end_with_parent() -> None:
    """Have this process end at once when its parent dies, even by SIGKILL: an orphan must not go on writing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
