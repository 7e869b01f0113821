"""The local engine: processes on this machine, started only when there is enough work to repay them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Generic, TypeVar

from larder.engines import ALONE_SECONDS

if TYPE_CHECKING:
    from larder.engines.pool import Pool

T = TypeVar("T")
R = TypeVar("R")


class LocalEngine:
    """Maps over `workers` processes; with one worker, in this very process.

    Work begins in this process. Once it has gone on for `alone_seconds`, workers are started beside it, and take over
    when they are there: so little work never waits for them, and more of it loses next to nothing. With 0 seconds
    nothing is done in this process.
    """

    def __init__(self, workers: int, alone_seconds: float = ALONE_SECONDS) -> None:
        self.workers, self._alone_seconds = workers, alone_seconds
        self._prepared = False

    def prepare(self, modules: Sequence[str]) -> None:
        """See `larder.engines.Engine`: workers are started at once then; work begins here all the same."""
        if self.workers == 1:
            return
        from larder.engines.pool import start_server

        start_server(modules)
        self._prepared = True

    def held(self) -> AbstractContextManager[None]:
        """See `larder.engines.Engine`: there is nothing to keep, as workers are for one function."""
        return nullcontext()

    @contextmanager
    def __call__(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Iterator[R]]:
        """See `larder.engines.Engine`."""
        if self.workers == 1:
            yield map(function, tasks)
            return
        start = _Start(self.workers, function, 0.0 if self._prepared else self._alone_seconds)
        try:
            if self._prepared or self._alone_seconds == 0:
                start.begin()
            if self._alone_seconds == 0:
                start.wait()
            yield _map(function, iter(tasks), start)
        except BaseException:
            start.end(at_once=True)
            raise
        else:
            start.end()


def _map(function: Callable[[T], R], tasks: Iterator[T], start: _Start[T, R]) -> Iterator[R]:
    """Do tasks here until the workers are there, and have them do the rest."""
    while not start.is_over:
        try:
            task = next(tasks)
        except StopIteration:
            return
        result = function(task)
        start.begin()  # not before: the first task imports what the work needs, which workers would do once more
        yield result
    yield from start.pool().map(tasks)


class _Start(Generic[T, R]):
    """Workers that are started in a thread of their own, some seconds after `begin`."""

    def __init__(self, workers: int, function: Callable[[T], R], after_seconds: float) -> None:
        self._workers, self._function, self._after_seconds = workers, function, after_seconds
        self._pool: Pool[T, R] | None = None
        self._fault: BaseException | None = None
        self._over, self._unwanted = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        """Count the seconds from now on."""
        if not self._thread.ident:
            self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether the workers are there, or can't be started."""
        return self._over.is_set()

    def wait(self) -> None:
        """Wait until it is over."""
        self._over.wait()

    def pool(self) -> Pool[T, R]:
        """The workers, when it is over. Raises what they could not be started for."""
        if self._pool is None or self._fault is not None:
            raise self._fault or RuntimeError("no workers were started")
        return self._pool

    def end(self, at_once: bool = False) -> None:
        """End the workers, or don't start them after all; at once is without waiting for what they are doing."""
        self._unwanted.set()
        if self._pool is not None and not self._over.is_set():
            self._pool.cancel()
        if self._thread.ident:
            self._thread.join()
        if self._pool is not None:
            self._pool.close(at_once)

    def _run(self) -> None:
        if self._unwanted.wait(self._after_seconds):
            return
        from larder.engines.pool import Pool  # here, since little work needs none of it

        self._pool = Pool(self._workers, self._function)
        try:
            self._pool.start(self._unwanted)
        except BaseException as fault:
            self._fault = fault
        self._over.set()
