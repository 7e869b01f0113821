"""How work is spread over workers: one callable interface, whatever does the work.

An engine maps a function over tasks and yields results in the order of the tasks, with a bounded
number under way, so neither tasks nor results pile up in memory. The first failure is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")
EngineName = Literal["local", "ray"]
ALONE_SECONDS = 0.3
"""About what it takes to start workers: `python -m benchmarks startup` measures it."""
_ADDRESS = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):\d{1,5}"


class Engine(Protocol):
    """The interface that every engine has."""

    def prepare(self, modules: Sequence[str]) -> None:
        """Begin to start what takes time, while the caller still plans work that is sure to repay it.

        `modules` are those that the work needs.
        """

    def held(self) -> AbstractContextManager[None]:
        """Keep what takes time to reach while the context lasts, for one stream after the other."""

    def __call__(self, function: Callable[[T], R], tasks: Iterable[T]) -> AbstractContextManager[Iterator[R]]:
        """Open a stream of `function(task)` for each task, in the order of the tasks.

        `function` and tasks must be picklable. Leaving the context stops the workers.
        Raises whatever `function` raises.
        """


def open_engine(
    name: EngineName, workers: int, alone_seconds: float, address: str = "",
    say: Callable[[str, str], None] | None = None,
) -> Engine:  # fmt: skip
    """The engine of that name, whose modules are imported here: the other one's may not be installed.

    `local` runs `workers` processes on this machine, once work has taken `alone_seconds` in this one. `ray` uses all
    CPUs of the Ray cluster at `address` (`host:port`, or `auto`), or starts one with `workers` CPUs on this machine;
    `say` is told an event's name and message when the cluster changes.
    """
    if name == "ray":
        from larder.engines.ray import RayEngine

        return RayEngine(workers, address, say)
    from larder.engines.local import LocalEngine

    return LocalEngine(workers, alone_seconds)


def is_address(address: str) -> bool:
    """Whether this can be a Ray cluster's address: host:port, auto, or empty."""
    return address in ("", "auto") or re.fullmatch(_ADDRESS, address) is not None
