"""The local engine: in order, bounded, and every failure is raised."""

import itertools
import math
import os
from collections.abc import Iterator

import pytest

from larder.engines import LocalEngine
from larder.errors import ResourceError


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_tasks_are_taken_as_needed(workers: int) -> None:
    taken = 0

    def tasks() -> Iterator[float]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield number * number

    with LocalEngine(workers)(math.sqrt, tasks()) as results:
        assert list(itertools.islice(results, 100)) == list(range(100))
    assert taken < 120


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_is_raised(workers: int) -> None:
    with LocalEngine(workers)(math.sqrt, [4.0, -1.0]) as results:
        assert next(results) == 2
        with pytest.raises(ValueError, match=r"math domain|nonnegative"):
            next(results)


def test_a_killed_worker_is_told() -> None:
    with pytest.raises(ResourceError, match="killed"), LocalEngine(2)(os._exit, [1, 1]) as results:
        list(results)
