"""The text files by which published data sets name their samples: one line each, words between spaces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from larder.errors import InputError
from larder.tree.recipes import Files

_LONGEST_LINE = 10_000


class Line(NamedTuple):
    """A line that isn't empty."""

    place: str
    """Where it stands: `meta/train.txt, line 3`."""
    text: str


def lines(files: Files, path: str) -> Iterator[Line]:
    """Each line of a list that isn't empty. Raises InputError for a file that isn't what was extracted, or no text."""
    files.require_intact(path)
    number = 0
    try:
        with files.local(path).open(encoding="utf-8-sig") as file:
            while text := file.readline(_LONGEST_LINE):
                number += 1
                if text.strip():
                    yield Line(f"{path}, line {number}", text.strip())
    except UnicodeDecodeError:
        raise fault(f"{path}, line {number + 1}", "is no text in UTF-8") from None


def fault(place: str, what: str) -> InputError:
    """The error for a line of a list."""
    return InputError(
        f"{place}: {what}", next_step="get the list again from where the data set comes from, then extract again"
    )
