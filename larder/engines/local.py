"""Run work in processes on this machine, started only if there is enough work to be worth it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Generic, TypeVar

from larder.engines import SERIAL_SECONDS

if TYPE_CHECKING:
    from larder.engines.pool import Pool

T = TypeVar("T")
R = TypeVar("R")


class LocalEngine:
    """An engine with processes on this machine.

    Work begins in this process. After `serial_seconds`, workers are started in the background, and take over once they
    run. So little work never waits for workers, and much work loses almost no time. With one worker, all work is done
    in this process.

    Args:
        workers: Number of processes.
        serial_seconds: How long to work in this process first. With 0, no work is done in this process.
    """

    def __init__(self, workers: int, serial_seconds: float = SERIAL_SECONDS) -> None:
        self.workers, self._serial_seconds = workers, serial_seconds
        self._prepared = False

    def prepare(self, modules: Sequence[str]) -> None:
        """See `larder.engines.Engine`. Workers are then started at once, but work still begins in this process."""
        if self.workers == 1:
            return
        from larder.engines.pool import start_server

        start_server(modules)
        self._prepared = True

    def keep_connected(self) -> AbstractContextManager[None]:
        """Return a context that does nothing: each call starts its own workers."""
        return nullcontext()

    @contextmanager
    def __call__(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Iterator[R]]:
        """See `larder.engines.Engine`."""
        if self.workers == 1:
            yield map(function, tasks)
            return
        start = _WorkerStart(self.workers, function, 0.0 if self._prepared else self._serial_seconds)
        try:
            if self._prepared or self._serial_seconds == 0:
                start.begin()
            if self._serial_seconds == 0:
                start.wait()
            yield _map(function, iter(tasks), start)
        except BaseException:
            start.end(at_once=True)
            raise
        else:
            start.end()


def _map(function: Callable[[T], R], tasks: Iterator[T], start: _WorkerStart[T, R]) -> Iterator[R]:
    """Do tasks in this process until the workers run, then leave the rest to them."""
    while not start.is_finished:
        try:
            task = next(tasks)
        except StopIteration:
            return
        result = function(task)
        start.begin()  # not before: the first task includes the imports, which workers would repeat
        yield result
    yield from start.pool().map(tasks)


class _WorkerStart(Generic[T, R]):
    """Start workers in a background thread, some seconds after `begin`."""

    def __init__(self, workers: int, function: Callable[[T], R], after_seconds: float) -> None:
        self._workers, self._function, self._after_seconds = workers, function, after_seconds
        self._pool: Pool[T, R] | None = None
        self._fault: BaseException | None = None
        self._finished, self._cancelled = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        """Start the countdown."""
        if not self._thread.ident:
            self._thread.start()

    @property
    def is_finished(self) -> bool:
        """Whether the workers run or have failed to start."""
        return self._finished.is_set()

    def wait(self) -> None:
        """Wait until the workers run or have failed to start."""
        self._finished.wait()

    def pool(self) -> Pool[T, R]:
        """Return the workers, or raise the error that kept them from starting. Requires `is_finished`."""
        if self._pool is None or self._fault is not None:
            raise self._fault or RuntimeError("no workers were started")
        return self._pool

    def end(self, at_once: bool = False) -> None:
        """Stop the workers or cancel their start. With `at_once`, don't wait for their current tasks."""
        self._cancelled.set()
        if self._pool is not None and not self._finished.is_set():
            self._pool.cancel()
        if self._thread.ident:
            self._thread.join()
        if self._pool is not None:
            self._pool.close(at_once)

    def _run(self) -> None:
        if self._cancelled.wait(self._after_seconds):
            return
        from larder.engines.pool import Pool  # imported here, since a small amount of work doesn't need it

        self._pool = Pool(self._workers, self._function)
        try:
            self._pool.start(self._cancelled)
        except BaseException as fault:
            self._fault = fault
        self._finished.set()
