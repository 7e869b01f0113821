"""Read text files in which published datasets list their samples, one per line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from larder.errors import InputError
from larder.tree.recipes import RecipeFiles

_MAX_LINE_CHARACTERS = 10_000


class ListLine(NamedTuple):
    """A non-empty line."""

    position: str
    """Position for messages: `meta/train.txt, line 3`."""
    text: str


def read_lines(files: RecipeFiles, path: str) -> Iterator[ListLine]:
    """Yield each non-empty line. Raise InputError if the file was changed after extract or isn't UTF-8."""
    files.require_intact(path)
    number = 0
    try:
        with files.local(path).open(encoding="utf-8-sig") as file:
            while text := file.readline(_MAX_LINE_CHARACTERS):
                number += 1
                if text.strip():
                    yield ListLine(f"{path}, line {number}", text.strip())
    except UnicodeDecodeError:
        raise list_error(f"{path}, line {number + 1}", "is not UTF-8 text") from None


def list_error(position: str, what: str) -> InputError:
    """Return the InputError for a line of a list."""
    return InputError(f"{position}: {what}", next_step="download the list again, then extract again")
