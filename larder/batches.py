"""Cut a stream into batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`. The last list may be shorter; no list is empty."""
    remaining = iter(items)
    while batch := list(itertools.islice(remaining, size)):
        yield batch
