"""Recipes: how a file's split and class are found. One module each, found by its name.

A recipe module has one function, `open`, that looks at the names of all files once and returns a `Recipe`:

    def open(files: Files) -> Recipe
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, cast

SPLITS = {
    "training": "training", "train": "training",
    "validation": "validation", "val": "validation", "valid": "validation",
    "evaluation": "evaluation", "eval": "evaluation", "test": "evaluation",
}  # fmt: skip
"""The names that people give the three splits, and those that Food-11 gives them."""


class Sample(NamedTuple):
    """Where a file goes: `<split>/class_<label>/<name>`."""

    split: str
    label: int
    name: str


class RejectError(ValueError):
    """A file that should be a sample and can't be one; says why."""


class Files(NamedTuple):
    """What a recipe may look at."""

    folder: Path
    """Where the extracted files lie."""
    paths: Callable[[], Iterator[str]]
    """Every file's path below `folder`, sorted; a new pass with each call."""
    require_intact: Callable[[str], None]
    """Raises InputError unless the file at a path is what was extracted; for files that a recipe reads."""
    scratch: Path
    """A folder for a recipe's temporary files."""
    csv: str
    """The setting LARDER_CSV."""
    label_column: str = ""
    """The setting LARDER_LABEL_COLUMN."""


class Recipe(Protocol):
    """Assigns files to splits and classes."""

    classes: list[str]
    """The classes' names; a label is an index into them."""

    def assign(self, path: str) -> Sample | None:
        """The sample that a file is, or None when it lies outside the data set. Raises RejectError."""

    def absent(self) -> Iterable[tuple[str, str]]:
        """Samples that the data set names but doesn't hold: path and reason."""


def names() -> list[str]:
    """The names of all recipes."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str, files: Files) -> Recipe:
    """Open the recipe `name`. Raises InputError when the files as a whole don't fit it."""
    module = importlib.import_module(f"{__name__}.{name}")
    return cast(Recipe, module.open(files))
