"""Do independent jobs in threads that end with the loop over their results."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")

_STOP_SECONDS = 5.0
"""Time for threads to end. One may wait for a store that doesn't answer; then it ends on its own later."""


class StoppedError(Exception):
    """A job has stopped since nobody wants its result any more."""


def map_in_threads(job: Callable[[A, threading.Event], R], arguments: Iterable[A], threads: int) -> Iterator[R]:
    """Yield the results of `job(argument, stop)`, in the order of the arguments.

    concurrent.futures would wait for jobs that were begun: after Ctrl-C, and at the end of the program.

    Args:
        job: The job. It may raise StoppedError as soon as the event `stop` is set.
        arguments: The jobs' arguments.
        threads: Maximum number of threads.

    Raises:
        BaseException: What the first job that fails has raised.
    """
    jobs = deque((argument, Future[R]()) for argument in arguments)
    results = deque(future for _, future in jobs)
    stop = threading.Event()
    running = [
        threading.Thread(target=_work, args=[job, jobs, stop], daemon=True, name="larder-scan")
        for _ in range(min(threads, len(jobs)))
    ]
    try:
        for thread in running:
            thread.start()
        while results:
            yield results.popleft().result()
    finally:
        stop.set()
        stop_at = time.monotonic() + _STOP_SECONDS
        for thread in running:
            if thread.ident is not None:  # it was started
                thread.join(max(0.0, stop_at - time.monotonic()))


def _work(job: Callable[[A, threading.Event], R], jobs: deque[tuple[A, Future[R]]], stop: threading.Event) -> None:
    """Do jobs until none is left."""
    while not stop.is_set():
        try:
            argument, future = jobs.popleft()
        except IndexError:
            return
        try:
            future.set_result(job(argument, stop))
        except BaseException as error:  # raised where the result is requested
            future.set_exception(error)
