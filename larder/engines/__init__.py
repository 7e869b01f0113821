"""How work is spread over workers: one callable interface, whatever does the work.

An engine maps a function over tasks and yields results in the order of the tasks, with a bounded
number under way, so neither tasks nor results pile up in memory. The first failure is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol, TypeVar

from larder.engines.local import LocalEngine
from larder.engines.ray import RayEngine
from larder.engines.ray_cluster import is_address

T = TypeVar("T")
R = TypeVar("R")
EngineName = Literal["local", "ray"]

__all__ = ["Engine", "EngineName", "LocalEngine", "RayEngine", "is_address", "open_engine"]


class Engine(Protocol):
    """The interface that every engine has."""

    def prepare(self, modules: Sequence[str]) -> None:
        """Begin to start what takes time, while the caller still plans; `modules` are those that the work needs."""

    def __call__(self, function: Callable[[T], R], tasks: Iterable[T]) -> AbstractContextManager[Iterator[R]]:
        """Open a stream of `function(task)` for each task, in the order of the tasks.

        `function` and tasks must be picklable. Leaving the context stops the workers.
        Raises whatever `function` raises.
        """


def open_engine(
    name: EngineName, workers: int, address: str = "", say: Callable[[str, str], None] | None = None
) -> Engine:
    """The engine of that name.

    `local` runs `workers` processes on this machine. `ray` uses all CPUs of the Ray cluster at `address` (`host:port`,
    or `auto`), or starts one with `workers` CPUs on this machine; `say` is told an event's name and message when the
    cluster changes.
    """
    return RayEngine(workers, address, say) if name == "ray" else LocalEngine(workers)
