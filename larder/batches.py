"""Cutting a stream into batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`, the last one shorter; never an empty one."""
    remaining = iter(items)
    while batch := list(itertools.islice(remaining, size)):
        yield batch
