"""Images that extract unpacked from Parquet files: `<split>/<label>/<file>`, with the class names in `classes.json`.

`<split>` is the split in the name of a Parquet file, or a value of its split column; `null` has the rows without a
value. The folders become splits by the same rules as the values of a table's split column (larder.tree.splits).
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from larder.errors import InputError
from larder.splits import TRAINING
from larder.tree.recipes import (
    AssignedSample,
    LeftOutError,
    RecipeFiles,
    RejectError,
    require_distinct,
    require_splits_used,
)
from larder.tree.splits import KNOWN_NAMES, OUT, SplitColumn, SplitNames

_CLASSES = "classes.json"
_MAX_BYTES = 64 << 20
_NEXT_STEP = "extract the Parquet files again, or choose another recipe with LARDER_RECIPE"


class ParquetRecipe:
    """Recipe that takes split and label from the folders.

    Args:
        classes: Names of the classes.
        folders: Names of the `<split>` folders.
        names: The names of splits.

    Raises:
        InputError: If a folder can't be a split, or LARDER_SPLITS names other folders.
    """

    def __init__(self, classes: list[str], folders: Iterable[str], names: SplitNames = KNOWN_NAMES) -> None:
        self.classes, self._splits, self._names = classes, _map_folders(folders, names), names
        self.is_undivided = set(self._splits.values()) == {TRAINING} and not names.given

    def assign(self, path: str) -> AssignedSample | None:
        """See `Recipe.assign`."""
        split, *inner = path.split("/")
        if not inner:
            return None
        if len(inner) != 2 or not (inner[0].isascii() and inner[0].isdecimal()):
            raise RejectError("doesn't lie at <split>/<label>/<file>")
        if int(inner[0]) >= len(self.classes):
            raise RejectError(f"has the label {inner[0]}, and {_CLASSES} names {len(self.classes)} classes")
        split_name = self._splits.get(split) or self._names.find(split) or split
        if split_name == OUT:
            raise LeftOutError("left out by LARDER_SPLITS")
        return AssignedSample(split_name, int(inner[0]), inner[1])

    def missing_files(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.missing_files`."""
        return ()


def _map_folders(folders: Iterable[str], names: SplitNames) -> dict[str, str]:
    """Return the split of each folder; "-" if it is left out."""
    column, splits, present = SplitColumn(names), dict[str, str](), sorted(filter(None, folders))
    for folder in present:
        try:
            splits[folder] = column.split(folder, f"those in the folder {folder}")
        except ValueError as fault:
            raise InputError(f"the source {fault}", next_step=_NEXT_STEP) from None
    column.require_values()
    require_splits_used(names, present)
    require_distinct(
        "the source has splits",
        splits.values(),
        "name one split for both in LARDER_SPLITS, or spell them the same, then extract again",
    )
    return splits


def recognize(files: RecipeFiles) -> str | None:
    """Detect `classes.json` at the top, and numeric folders in split folders; see `recipes`."""
    labels = (folder.partition("/")[2] for folder in files.summary.folders)
    if _CLASSES in files.summary.lists and any(label.isascii() and label.isdecimal() for label in labels):
        return f"{_CLASSES}, which extract makes of Parquet files"
    return None


def open(files: RecipeFiles) -> ParquetRecipe:
    """Read the names of the classes. Raise InputError if their file is missing or invalid."""
    path = files.local(_CLASSES)
    if not path.is_file():
        raise InputError(f"the source has no {_CLASSES}, which extract makes of Parquet files", next_step=_NEXT_STEP)
    files.require_intact(_CLASSES)
    try:
        with path.open("rb") as file:
            classes = json.loads(file.read(_MAX_BYTES))["classes"]
    except (ValueError, KeyError, TypeError, RecursionError):
        classes = None
    if not (classes and isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise InputError(f"{_CLASSES} holds no list of classes", next_step=_NEXT_STEP)
    return ParquetRecipe(classes, files.summary.tops, files.splits)
