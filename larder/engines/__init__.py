"""How work is spread over workers: one callable interface, whatever does the work.

An engine maps a function over tasks and yields results in the order of the tasks, with a bounded
number under way, so neither tasks nor results pile up in memory. The first failure is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from larder.engines.local import LocalEngine

T = TypeVar("T")
R = TypeVar("R")

__all__ = ["Engine", "LocalEngine"]


class Engine(Protocol):
    """The interface that every engine has."""

    def __call__(self, function: Callable[[T], R], tasks: Iterable[T]) -> AbstractContextManager[Iterator[R]]:
        """Open a stream of `function(task)` for each task, in the order of the tasks.

        `function` and tasks must be picklable. Leaving the context stops the workers.
        Raises whatever `function` raises.
        """
