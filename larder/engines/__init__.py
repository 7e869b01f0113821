"""Run work on worker processes or on a Ray cluster, through one interface.

An engine maps a function over tasks and yields the results in the order of the tasks. The number of tasks in flight is
bounded, so neither tasks nor results fill the memory. The first failure is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")
EngineName = Literal["local", "ray"]
SERIAL_SECONDS = 0.3
"""Default time before the local engine starts workers: about as long as starting them takes, as
`python -m benchmarks startup` measures it."""
_ADDRESS = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):\d{1,5}"


class Engine(Protocol):
    """The interface of every engine."""

    def prepare(self, modules: Sequence[str]) -> None:
        """Start workers early, while the caller still plans work that is large enough for them.

        Args:
            modules: Names of the modules that the work imports.
        """

    def keep_connected(self) -> AbstractContextManager[None]:
        """Keep the connection to a cluster open within the context, so that several calls share it."""

    def __call__(self, function: Callable[[T], R], tasks: Iterable[T]) -> AbstractContextManager[Iterator[R]]:
        """Apply a function to every task. Leaving the context stops the workers.

        Args:
            function: The function; must be picklable. Its exceptions are raised in the caller.
            tasks: Its arguments; must be picklable.

        Returns:
            A context manager that gives an iterator over the results, in the order of the tasks.
        """


def open_engine(
    name: EngineName,
    workers: int,
    serial_seconds: float,
    address: str = "",
    report: Callable[[str, str], None] | None = None,
) -> Engine:
    """Create an engine.

    Args:
        name: `local` uses processes on this machine; `ray` uses all CPUs of a Ray cluster.
        workers: Number of processes, or of CPUs of a Ray cluster that is started on this machine.
        serial_seconds: How long the local engine works in this process before it starts workers.
        address: The Ray cluster's head, as `host:port` or `auto`. If empty, start a cluster on this machine.
        report: Called with an event's name and message when the Ray cluster changes.
    """
    # Import only the modules of this engine.
    if name == "ray":
        from larder.engines.ray import RayEngine

        return RayEngine(workers, address, report)
    from larder.engines.local import LocalEngine

    return LocalEngine(workers, serial_seconds)


def is_address(address: str) -> bool:
    """Return whether this is a valid Ray address: host:port, auto, or empty."""
    return address in ("", "auto") or re.fullmatch(_ADDRESS, address) is not None
