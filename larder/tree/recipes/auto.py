"""Recognises the layout, and takes the recipe for it."""

from __future__ import annotations

from typing import NamedTuple

from larder.errors import InputError
from larder.tree import recipes
from larder.tree.recipes import AUTO, Files, Recipe, require_images

_LAST = ("food11", "csv", "imagefolder")
"""Those that fit many layouts come after those for one data set, the most general one last."""


class Recognised(NamedTuple):
    """A recipe, and by what it was recognised."""

    name: str
    why: str


def recognise_layout(files: Files) -> Recognised:
    """The recipe for these files. Raises InputError when there is none."""
    if files.csv:
        return Recognised("csv", "LARDER_CSV is set")
    special = [name for name in recipes.names() if name not in (AUTO, *_LAST)]
    for name in (*special, *_LAST):
        recognise = getattr(recipes.module(name), "recognise", None)
        why = recognise(files) if recognise is not None else None
        if why is not None:
            _require_no_unread_table(name, files)
            return Recognised(name, why)
    require_images(files)
    raise InputError(
        f"no layout that a recipe knows: the source has {files.survey.in_words()}",
        next_step="put the images into a folder for each class, or add a table with the columns file and label (see "
        "services/transform/README.md), then extract again",
    )


def _require_no_unread_table(name: str, files: Files) -> None:
    """Raise InputError where one folder would be the only class, and a table that isn't understood lies beside it."""
    tables = [path for path in files.survey.lists if path.lower().endswith((".csv", ".tsv"))]
    if name != "imagefolder" or not tables or len(recipes.load(name, files).classes) > 1:
        return
    raise InputError(
        f"all images lie in one folder, and no recipe understands the table {tables[0]!a}",
        next_step=f"set LARDER_CSV={tables[0]!a} if it names the images' classes, in columns file and label (see "
        "services/transform/README.md); or LARDER_RECIPE=imagefolder if there is one class",
    )


def open(files: Files) -> Recipe:
    """Open the recipe for these files."""
    return recipes.load(recognise_layout(files).name, files)
