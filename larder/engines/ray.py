"""The Ray engine: the CPUs of a cluster, whose nodes may come and go while the work goes on.

Ray is imported when an engine is used, not before: most stages don't have it.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from larder.engines.ray_cluster import START, Say, driver, import_ray, listens
from larder.errors import ConfigurationError, ResourceError, ServiceError
from larder.progress import amount

T = TypeVar("T")
R = TypeVar("R")

TASKS_IN_FLIGHT_PER_CPU = 3
RETRIES = 5
"""How often a task is repeated whose worker or node was lost. Its failures are not repeated."""
LOOK_SECONDS = 2.0
LOST_SECONDS = 30.0
"""Without a word from the head. Ray itself ends the process after 60 s."""


class RayEngine:
    """Maps over the CPUs of a Ray cluster: the one at `address`, or one on this machine with `workers` CPUs."""

    def __init__(self, workers: int, address: str = "", say: Say | None = None, patience_seconds: float = 60.0) -> None:
        """`say` is told how many CPUs there are; without any for `patience_seconds` the work is given up."""
        self.workers, self.address = workers, address
        self._say = say if say and address else _nothing
        self._patience_seconds = patience_seconds
        self._joined: ExitStack | None = None
        self._head = ""

    def prepare(self, modules: Sequence[str]) -> None:
        """See `larder.engines.Engine`. Nothing: who only finds that all is done joins no cluster."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """See `larder.engines.Engine`: the cluster is joined for the first stream, and left with the context."""
        with ExitStack() as joined:
            self._joined = joined
            try:
                yield
            finally:
                self._joined, self._head = None, ""

    @contextmanager
    def __call__(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Iterator[R]]:
        """See `larder.engines.Engine`. Raises ServiceError when the cluster is lost or has no CPUs."""
        if self._joined is not None:
            if not self._head:
                self._head = self._joined.enter_context(driver(self.address, self.workers, self._say))
            yield _in_order(function, tasks, _Watch(self._head, self._say, self._patience_seconds))
            return
        with driver(self.address, self.workers, self._say) as head:
            # Leaving is enough to stop what is under way: the cluster ends the workers of a driver that has gone.
            # ray.cancel is not for this: with tasks that are just ending it can bring this process down.
            yield _in_order(function, tasks, _Watch(head, self._say, self._patience_seconds))


class _Watch:
    """Looks from time to time how the cluster does."""

    def __init__(self, head: str, say: Say, patience_seconds: float) -> None:
        self._ray = import_ray()
        self._head, self._say, self._patience_seconds = head, say, patience_seconds
        self._cpus = -1
        self._next_look = 0.0
        self._silent_since = self._bare_since = math.inf

    def room(self) -> int:
        """How many tasks may be under way. Raises ServiceError when the cluster is lost or has no CPUs."""
        if time.monotonic() >= self._next_look:
            self._look(time.monotonic())
            self._next_look = time.monotonic() + LOOK_SECONDS
        return max(1, self._cpus * TASKS_IN_FLIGHT_PER_CPU)

    def _look(self, now: float) -> None:
        if (fault := listens(self._head)) is not None:
            self._silent_since = min(self._silent_since, now)
            if now - self._silent_since > LOST_SECONDS:
                raise _lost(f"its head at {self._head} does not answer ({fault})")
            return
        self._silent_since = math.inf
        self.tell()
        self._bare_since = math.inf if self._cpus else min(self._bare_since, now)
        if now - self._bare_since > self._patience_seconds:
            raise ServiceError(
                f"the Ray cluster at {self._head} has had no CPUs for {self._patience_seconds:.0f} s",
                next_step=f"add nodes ({START}, or `ray start --address={self._head}`), then run again: it resumes",
            )

    def tell(self) -> None:
        """Say how many CPUs there are, if that has changed."""
        before, cpus = self._cpus, int(self._ray.cluster_resources().get("CPU", 0))
        self._cpus = cpus
        if cpus == before:
            return
        if not cpus:
            wait = f"waiting up to {self._patience_seconds:.0f} s for a node"
            self._say("cluster", f"the Ray cluster at {self._head} has no CPUs: {wait}")
        elif before < 0:
            self._say("cluster", f"the Ray cluster at {self._head} has {amount(cpus, 'CPUs')}")
        else:
            self._say("cluster", f"the Ray cluster has {amount(cpus, 'CPUs')} now, {before} before")


def _in_order(function: Callable[[T], R], tasks: Iterable[T], watch: _Watch) -> Iterator[R]:
    ray = import_ray()
    call = ray.remote(num_cpus=1, max_retries=RETRIES)(_call)
    pending: deque[Any] = deque()  # references to results
    remaining = iter(tasks)
    while True:
        room = max(0, watch.room() - len(pending))
        pending.extend(call.remote(function, task) for task in itertools.islice(remaining, room))
        if not pending:
            watch.tell()  # of a node whose loss was the reason for the last wait
            return
        try:
            result = _get(pending[0])
        except ray.exceptions.GetTimeoutError:
            continue
        pending.popleft()
        yield result


def _get(reference: Any) -> Any:
    """A result. Raises Ray's GetTimeoutError when it isn't there within `LOOK_SECONDS`."""
    ray = import_ray()
    errors = ray.exceptions
    try:
        return ray.get(reference, timeout=LOOK_SECONDS)
    except errors.GetTimeoutError:
        raise
    except errors.RayTaskError as error:
        if isinstance(error.cause, ModuleNotFoundError):
            raise ConfigurationError(
                f"the cluster's nodes don't have this stage's code: {error.cause}",
                next_step=f"start the cluster from this stage's image: {START}, for optimize with "
                "LARDER_RAY_STAGE=optimize; other nodes need the same code and packages",
            ) from error
        raise error.cause from error
    except (errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
        raise ResourceError(
            f"the workers of a task were killed {RETRIES + 1} times, most likely because memory ran out",
            next_step="give the nodes more memory or fewer CPUs each, then run again: it resumes",
        ) from error
    except errors.RayError as error:
        raise _lost(str(error).strip().splitlines()[0]) from error


def _call(function: Callable[[T], R], task: T) -> R:
    return function(task)


def _nothing(name: str, message: str) -> None:
    """Say nothing: nobody listens, or nothing can change."""


def _lost(why: str) -> ServiceError:
    return ServiceError(
        f"the Ray cluster was lost: {why}", next_step=f"start it again ({START}), then run again: it resumes"
    )
