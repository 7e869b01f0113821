"""Recipes: how a file's split and class are found. One module each, found by its name.

A recipe module has a function, `open`, that looks at the names of all files once and returns a `Recipe`:

    def open(files: Files) -> Recipe

and mostly another one, by which the recipe `auto` finds it: why the files are laid out as it expects, or None.

    def recognise(files: Files) -> str | None
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Protocol, cast

from larder.errors import InputError
from larder.tree.names import look_alikes
from larder.tree.splits import KNOWN_NAMES, SplitNames
from larder.tree.survey import Survey, some

AUTO = "auto"
_SHOWN = 100
DEFAULT_SPLIT = "training"
"""What everything is where a data set has no splits."""


class Sample(NamedTuple):
    """Where a file goes: `<split>/class_<label>/<name>`."""

    split: str
    label: int
    name: str


class RejectError(ValueError):
    """A file that should be a sample and can't be one; says why."""


class LeftOutError(ValueError):
    """A file that is no part of the data set; says why, in a few words that many files share."""


@dataclass(frozen=True)
class Files:
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
    splits: SplitNames = KNOWN_NAMES
    """The setting LARDER_SPLITS, and the names that are known."""
    label_column: str = ""
    """The setting LARDER_LABEL_COLUMN."""
    fetch: Callable[[str], None] | None = None
    """Brings the file at a path to `folder`, where they lie elsewhere."""
    holds: Callable[[str], bool] | None = None
    """Whether there is a file at a path, where they lie elsewhere."""

    def local(self, path: str) -> Path:
        """The place of a file that is to be read."""
        if self.fetch is not None:
            self.fetch(path)
        return self.folder / path

    def exists(self, path: str) -> bool:
        """Whether there is a file at a path."""
        return self.holds(path) if self.holds is not None else os.path.isfile(self.folder / path)

    read_all: Callable[[str, int], Iterator[tuple[str, bytes]]] = lambda ending, most: iter(())
    """Path and content of every file with an ending, sorted; hidden ones and litter left out. Raises InputError for one
    that isn't what was extracted, or has more than so many bytes."""

    @cached_property
    def survey(self) -> Survey:
        """What lies where."""
        return Survey(self.paths())


class Recipe(Protocol):
    """Assigns files to splits and classes."""

    classes: list[str]
    """The classes' names; a label is an index into them."""

    def assign(self, path: str) -> Sample | None:
        """The sample that a file is, or None when it lies outside the data set.

        Raises RejectError, or LeftOutError for a file outside with a reason of its own.
        """

    def absent(self) -> Iterable[tuple[str, str]]:
        """Samples that the data set names but doesn't hold: path and reason."""


def names() -> list[str]:
    """The names of all recipes."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def module(name: str) -> ModuleType:
    """The module of the recipe `name`."""
    return importlib.import_module(f"{__name__}.{name}")


def load(name: str, files: Files) -> Recipe:
    """Open the recipe `name`. Raises InputError when the files as a whole don't fit it."""
    return cast(Recipe, module(name).open(files))


def names_samples(recipe: Recipe) -> bool:
    """Whether a list names every sample of a recipe, so that a file in it is never taken for something else."""
    return bool(getattr(recipe, "names_samples", False))


def is_undivided(recipe: Recipe) -> bool:
    """Whether a recipe has found no splits, and may be divided by LARDER_SPLIT."""
    return bool(getattr(recipe, "is_undivided", False))


def require_images(files: Files) -> None:
    """Raise InputError for a source without images, with what it has in their place."""
    survey = files.survey
    if survey.folders:
        return
    steps = "check LARDER_SOURCE"
    if survey.archives:
        steps = "unpack them, or set LARDER_SOURCE to the one that holds the images, then extract again"
    raise InputError(f"the source has {survey.in_words()}", next_step=steps)


def unplaced(folders: Iterable[str], beside: str) -> InputError:
    """The error for folders that hold images, and of which nothing says which split they are."""
    shown = sorted(folders)
    plain = re.fullmatch(r"[\w./-]+", shown[0])
    first = shown[0] if plain else f"'{shown[0]}'" if shown[0].isprintable() else "FOLDER"
    return InputError(
        f"{some(shown)} hold{'s' if len(shown) == 1 else ''} images, and {beside}",
        next_step=f"set LARDER_SPLITS={first}=validation (or another split for each), or {first}=- to leave it out",
    )


def require_distinct(kind: str, found: Iterable[str], next_step: str) -> None:
    """Raise InputError for classes or splits that look alike: most often one that was written in two ways."""
    pairs = [f"{ascii(one)[:_SHOWN]} and {ascii(other)[:_SHOWN]}" for one, other in look_alikes(found)]
    if pairs:
        more = f" (and {len(pairs) - 3:,} more pairs)" if len(pairs) > 3 else ""
        raise InputError(
            f"{kind} that differ only in case, spaces or Unicode form, or are one number: {'; '.join(pairs[:3])}{more}",
            next_step=next_step,
        )
