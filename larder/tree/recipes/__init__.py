"""Recipes: rules that find the split and class of each file. Each recipe is a module.

A recipe module has a function `open` that inspects the paths of all files once and returns a `Recipe`:

    def open(files: RecipeFiles) -> Recipe

Most also have a function by which the recipe `auto` selects them. It returns why the layout matches, or None:

    def recognize(files: RecipeFiles) -> str | None
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
from larder.splits import find_split_in_name
from larder.tree.file_names import look_alikes
from larder.tree.source_summary import SourceSummary, first_names
from larder.tree.splits import KNOWN_NAMES, OUT, SplitNames

AUTO = "auto"
_SHOWN_CHARACTERS = 100
DEFAULT_SPLIT = "training"
"""Split of all samples in a dataset without splits."""


class AssignedSample(NamedTuple):
    """Destination of a file: `<split>/class_<label>/<name>`."""

    split: str
    label: int
    name: str


class RejectError(ValueError):
    """The file belongs to the dataset but can't be a sample; the message says why."""


class LeftOutError(ValueError):
    """The file isn't part of the dataset. The message says why, in a few words that are the same for many files."""


@dataclass(frozen=True)
class RecipeFiles:
    """The source's files, and the settings that recipes use."""

    folder: Path
    """Folder of the extracted files."""
    paths: Callable[[], Iterator[str]]
    """Iterates over the paths of all files below `folder`, sorted; each call starts again."""
    require_intact: Callable[[str], None]
    """Raises InputError if a file that a recipe reads was changed after extract."""
    scratch: Path
    """Folder for temporary files."""
    csv: str
    """The setting LARDER_CSV."""
    splits: SplitNames = KNOWN_NAMES
    """The setting LARDER_SPLITS, and the known names of splits."""
    label_column: str = ""
    """The setting LARDER_LABEL_COLUMN."""
    fetch: Callable[[str], None] | None = None
    """Downloads a file to `folder`; None if the files are local."""
    holds: Callable[[str], bool] | None = None
    """Returns whether a file exists; None if the files are local."""
    read_all: Callable[[str, int], Iterator[tuple[str, bytes]]] = lambda ending, max_bytes: iter(())
    """Yields path and content of every file with an extension, sorted, without hidden files and litter. Raises
    InputError for a file that was changed after extract, or is longer than the given number of bytes."""

    def local(self, path: str) -> Path:
        """Return the local path of a file; download it if necessary."""
        if self.fetch is not None:
            self.fetch(path)
        return self.folder / path

    def exists(self, path: str) -> bool:
        """Return whether there is a file at `path`."""
        return self.holds(path) if self.holds is not None else os.path.isfile(self.folder / path)

    @cached_property
    def summary(self) -> SourceSummary:
        """Summary of the files."""
        return SourceSummary(self.paths())


class Recipe(Protocol):
    """Assigns files to splits and classes."""

    classes: list[str]
    """Names of the classes; a label is an index into this list."""

    def assign(self, path: str) -> AssignedSample | None:
        """Return the sample for the file at `path`, or None if it isn't part of the dataset.

        Raises:
            RejectError: If the file belongs to the dataset but can't be a sample.
            LeftOutError: If the file isn't part of the dataset, and the recipe can say why.
        """

    def missing_files(self) -> Iterable[tuple[str, str]]:
        """Yield path and reason of each sample that the dataset lists but doesn't contain."""


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    return sorted(recipe_module.name for recipe_module in pkgutil.iter_modules(__path__))


def recipe_module(name: str) -> ModuleType:
    """Return the module of the recipe `name`."""
    return importlib.import_module(f"{__name__}.{name}")


def open_recipe(name: str, files: RecipeFiles) -> Recipe:
    """Open a recipe.

    Args:
        name: Name of the recipe, as LARDER_RECIPE has it.
        files: The source's files.

    Raises:
        InputError: If the source as a whole doesn't fit the recipe.
    """
    return cast(Recipe, recipe_module(name).open(files))


def names_samples(recipe: Recipe) -> bool:
    """Return whether a recipe takes all samples from a list; then a listed file is always a sample."""
    return bool(getattr(recipe, "names_samples", False))


def is_undivided(recipe: Recipe) -> bool:
    """Return whether a recipe found no splits, so that LARDER_SPLIT may divide the dataset."""
    return bool(getattr(recipe, "is_undivided", False))


def require_images(files: RecipeFiles) -> None:
    """Raise InputError for a source without images, and say what it contains instead."""
    summary = files.summary
    if summary.folders:
        return
    steps = "check LARDER_SOURCE"
    if summary.archives:
        steps = "unpack them, or set LARDER_SOURCE to the one that holds the images, then extract again"
    raise InputError(f"the source has {summary.describe()}", next_step=steps)


def unknown_folders_error(folders: Iterable[str], beside: str) -> InputError:
    """Return the error for folders of images whose split is unknown."""
    shown = sorted(folders)
    first = quote_for_setting(shown[0])
    return InputError(
        f"{first_names(shown)} hold{'s' if len(shown) == 1 else ''} images, and {beside}",
        next_step=f"set LARDER_SPLITS={first}={find_split_in_name(shown[0]) or 'validation'} (or another split for "
        f"each), or {first}=- to leave it out",
    )


def quote_for_setting(folder: str) -> str:
    """Return a folder's name as it is written in LARDER_SPLITS."""
    return folder if re.fullmatch(r"[\w./-]+", folder) else f"'{folder}'" if folder.isprintable() else "FOLDER"


def require_no_unknown_splits(
    folders: Iterable[str], names: SplitNames, stem: Callable[[str], str] = lambda name: name
) -> None:
    """Raise InputError if folders of a dataset without splits have names that may mean splits.

    Args:
        folders: Paths of the folders; "" is the top.
        names: The names of splits.
        stem: Returns a folder's name as LARDER_SPLITS may give it.
    """
    paths = sorted(set(folders))
    if names.none or not any(map(_part_like_split, paths)):
        return
    raise InputError(
        f"{first_names(paths)} may be splits, judging by {'its name' if len(paths) == 1 else 'their names'}",
        next_step=f"set LARDER_SPLITS={suggest_splits(paths, stem)}; or LARDER_SPLITS=none if they are not splits",
    )


def suggest_splits(folders: Iterable[str], stem: Callable[[str], str] = lambda name: name) -> str:
    """Return a value of LARDER_SPLITS for these folders, as far as their names need no quoting."""
    stems = dict.fromkeys(stem(_part_like_split(folder) or folder.rpartition("/")[2]) for folder in folders)
    plain = [name for name in stems if name and not set(name) & set(" ,='\"\\$`") and name.isprintable()][:8]
    return ",".join(f"{name}={find_split_in_name(name) or DEFAULT_SPLIT}" for name in plain) or "FOLDER=validation"


def _part_like_split(folder: str) -> str:
    """Return the first part of a path that may mean a split, or ""."""
    return next((part for part in folder.split("/") if find_split_in_name(part)), "")


def unlisted_error(path: str, why: str, names: SplitNames) -> RejectError | LeftOutError:
    """Return the error for an image without a class.

    Args:
        path: Path of the image.
        why: Why it has no class, as the rest of a sentence that begins with the path.
        names: The names of splits.

    Returns:
        LeftOutError if LARDER_SPLITS leaves the image out, else RejectError.
    """
    folders = path.split("/")[:-1]
    in_splits = [(folder, split) for folder in folders if (split := names.find(folder)) is not None]
    if any(split == OUT for _, split in in_splits):
        return LeftOutError("left out by LARDER_SPLITS")
    return RejectError(
        f"{why}; LARDER_SPLITS={quote_for_setting(in_splits[0][0])}=- leaves such images out" if in_splits else why
    )


def require_splits_used(splits: SplitNames, present: Iterable[str]) -> None:
    """Raise InputError if LARDER_SPLITS names a folder that isn't in `present`."""
    tops = sorted(set(present))
    if unused := splits.unused(tops):
        raise InputError(
            f"LARDER_SPLITS names {first_names(unused)}, and the source has the folders "
            f"{first_names(tops) or '(none)'}",
            next_step="correct LARDER_SPLITS",
        )


def require_distinct(kind: str, names: Iterable[str], next_step: str) -> None:
    """Check that no two classes or splits look alike: most often they are one name in two spellings.

    Args:
        kind: What the names are, for messages, as in "the source has classes".
        names: The names.
        next_step: What the user can do.

    Raises:
        InputError: If two names look alike.
    """
    pairs = [
        f"{ascii(one)[:_SHOWN_CHARACTERS]} and {ascii(other)[:_SHOWN_CHARACTERS]}" for one, other in look_alikes(names)
    ]
    if pairs:
        more = f" (and {len(pairs) - 3:,} more pairs)" if len(pairs) > 3 else ""
        raise InputError(
            f"{kind} that differ only in case, spaces or Unicode form or in letters that look alike, or are the same "
            "number: "
            f"{'; '.join(pairs[:3])}{more}",
            next_step=next_step,
        )
