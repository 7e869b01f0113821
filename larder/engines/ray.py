"""Run work on the CPUs of a Ray cluster, whose nodes may join and leave during the work.

Ray is imported on first use, since most stages don't have it installed.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from larder.engines.ray_cluster import START, ReportEvent, connection_error, driver, import_ray
from larder.errors import ConfigurationError, ResourceError, ServiceError
from larder.progress import format_amount

T = TypeVar("T")
R = TypeVar("R")

TASKS_IN_FLIGHT_PER_CPU = 3
RETRIES = 5
"""How often a task is retried after its worker or node was lost. A task that raises isn't retried."""
CHECK_INTERVAL_SECONDS = 2.0
LOST_SECONDS = 30.0
"""Time without contact to the head after which the cluster counts as lost. Ray itself ends the process after 60 s."""


class RayEngine:
    """An engine with the CPUs of a Ray cluster: the one at `address`, or a new one on this machine."""

    def __init__(
        self, workers: int, address: str = "", report: ReportEvent | None = None, wait_for_cpus_seconds: float = 60.0
    ) -> None:
        """Configure the engine without connecting.

        Args:
            workers: Number of CPUs of a cluster on this machine.
            address: The cluster's head, as `host:port` or `auto`. If empty, start a cluster on this machine.
            report: Called with an event's name and message when the number of CPUs changes.
            wait_for_cpus_seconds: How long to wait if the cluster has no CPUs.
        """
        self.workers, self.address = workers, address
        self._report = report if report and address else _discard_event
        self._wait_for_cpus_seconds = wait_for_cpus_seconds
        self._joined: ExitStack | None = None
        self._head = ""

    def prepare(self, modules: Sequence[str]) -> None:
        """Do nothing: a run that finds its result up to date shouldn't join a cluster."""

    @contextmanager
    def keep_connected(self) -> Iterator[None]:
        """See `larder.engines.Engine`. The first call joins the cluster; leaving the context leaves the cluster."""
        with ExitStack() as joined:
            self._joined = joined
            try:
                yield
            finally:
                self._joined, self._head = None, ""

    @contextmanager
    def __call__(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Iterator[R]]:
        """See `larder.engines.Engine`. Raises ServiceError if the cluster is lost or has no CPUs."""
        if self._joined is not None:
            if not self._head:
                self._head = self._joined.enter_context(driver(self.address, self.workers, self._report))
            yield _in_order(function, tasks, _ClusterWatch(self._head, self._report, self._wait_for_cpus_seconds))
            return
        with driver(self.address, self.workers, self._report) as head:
            # Leaving stops running tasks: the cluster ends the workers of a driver that is gone.
            # Don't use ray.cancel: it can crash this process if a task is just ending.
            yield _in_order(function, tasks, _ClusterWatch(head, self._report, self._wait_for_cpus_seconds))


class _ClusterWatch:
    """Check the state of the cluster regularly."""

    def __init__(self, head: str, report: ReportEvent, wait_for_cpus_seconds: float) -> None:
        self._ray = import_ray()
        self._head, self._report, self._wait_for_cpus_seconds = head, report, wait_for_cpus_seconds
        self._cpus = -1
        self._next_check = 0.0
        self._unreachable_since = self._no_cpus_since = math.inf

    def max_in_flight(self) -> int:
        """Return how many tasks may be in flight. Raises ServiceError if the cluster is lost or has no CPUs."""
        if time.monotonic() >= self._next_check:
            self._check(time.monotonic())
            self._next_check = time.monotonic() + CHECK_INTERVAL_SECONDS
        return max(1, self._cpus * TASKS_IN_FLIGHT_PER_CPU)

    def _check(self, now: float) -> None:
        if (fault := connection_error(self._head)) is not None:
            self._unreachable_since = min(self._unreachable_since, now)
            if now - self._unreachable_since > LOST_SECONDS:
                raise _lost_error(f"its head at {self._head} does not answer ({fault})")
            return
        self._unreachable_since = math.inf
        self.report_cpus()
        self._no_cpus_since = math.inf if self._cpus else min(self._no_cpus_since, now)
        if now - self._no_cpus_since > self._wait_for_cpus_seconds:
            raise ServiceError(
                f"the Ray cluster at {self._head} has had no CPUs for {self._wait_for_cpus_seconds:.0f} s",
                next_step=f"add nodes ({START}, or `ray start --address={self._head}`), then run again: it resumes",
            )

    def report_cpus(self) -> None:
        """Report the number of CPUs if it has changed."""
        previous, cpus = self._cpus, int(self._ray.cluster_resources().get("CPU", 0))
        self._cpus = cpus
        if cpus == previous:
            return
        if not cpus:
            wait = f"waiting up to {self._wait_for_cpus_seconds:.0f} s for a node"
            self._report("cluster", f"the Ray cluster at {self._head} has no CPUs: {wait}")
        elif previous < 0:
            self._report("cluster", f"the Ray cluster at {self._head} has {format_amount(cpus, 'CPUs')}")
        else:
            self._report("cluster", f"the Ray cluster has {format_amount(cpus, 'CPUs')} now, {previous} before")


def _in_order(function: Callable[[T], R], tasks: Iterable[T], watch: _ClusterWatch) -> Iterator[R]:
    ray = import_ray()
    call = ray.remote(num_cpus=1, max_retries=RETRIES)(_call)
    pending: deque[Any] = deque()  # references to results
    remaining = iter(tasks)
    while True:
        free = max(0, watch.max_in_flight() - len(pending))
        pending.extend(call.remote(function, task) for task in itertools.islice(remaining, free))
        if not pending:
            watch.report_cpus()  # the last wait may have been for a lost node
            return
        try:
            result = _get(pending[0])
        except ray.exceptions.GetTimeoutError:
            continue
        pending.popleft()
        yield result


def _get(reference: Any) -> Any:
    """Return a result. Raises Ray's GetTimeoutError if it takes longer than `CHECK_INTERVAL_SECONDS`."""
    ray = import_ray()
    errors = ray.exceptions
    try:
        return ray.get(reference, timeout=CHECK_INTERVAL_SECONDS)
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
        raise _lost_error(str(error).strip().splitlines()[0]) from error


def _call(function: Callable[[T], R], task: T) -> R:
    return function(task)


def _discard_event(name: str, message: str) -> None:
    """Ignore an event."""


def _lost_error(why: str) -> ServiceError:
    return ServiceError(
        f"the Ray cluster was lost: {why}", next_step=f"start it again ({START}), then run again: it resumes"
    )
