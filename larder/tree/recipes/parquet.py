"""What extract makes of Parquet files: `<split>/<label>/<file>`, and the classes' names by label in `classes.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable

from larder.errors import InputError
from larder.tree.recipes import Files, LeftOutError, RejectError, Sample
from larder.tree.splits import KNOWN_NAMES, OUT, SplitNames

_CLASSES = "classes.json"
_MOST_BYTES = 64 << 20
_OTHERWISE = "extract the Parquet files again, or choose another recipe with LARDER_RECIPE"


class Parquet:
    """Reads split and label from the folders."""

    def __init__(self, classes: list[str], names: SplitNames = KNOWN_NAMES) -> None:
        self.classes, self._names = classes, names

    def assign(self, path: str) -> Sample | None:
        """See `Recipe.assign`."""
        split, *inner = path.split("/")
        if not inner:
            return None
        if len(inner) != 2 or not (inner[0].isascii() and inner[0].isdecimal()):
            raise RejectError("doesn't lie at <split>/<label>/<file>")
        if int(inner[0]) >= len(self.classes):
            raise RejectError(f"has the label {inner[0]}, and {_CLASSES} names {len(self.classes)} classes")
        named = self._names.find(split) or split
        if named == OUT:
            raise LeftOutError("left out by LARDER_SPLITS")
        return Sample(named, int(inner[0]), inner[1])

    def absent(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.absent`."""
        return ()


def recognise(files: Files) -> str | None:
    """See `recipes`: the classes' names at the top, and folders of labels in those of splits."""
    labels = (folder.partition("/")[2] for folder in files.survey.folders)
    if _CLASSES in files.survey.lists and any(label.isascii() and label.isdecimal() for label in labels):
        return f"{_CLASSES}, which extract makes of Parquet files"
    return None


def open(files: Files) -> Parquet:
    """Read the classes. Raises InputError when the file with their names is absent or something else."""
    path = files.local(_CLASSES)
    if not path.is_file():
        raise InputError(f"the source has no {_CLASSES}, which extract makes of Parquet files", next_step=_OTHERWISE)
    files.require_intact(_CLASSES)
    try:
        with path.open("rb") as file:
            classes = json.loads(file.read(_MOST_BYTES))["classes"]
    except (ValueError, KeyError, TypeError, RecursionError):
        classes = None
    if not (classes and isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise InputError(f"{_CLASSES} holds no list of classes", next_step=_OTHERWISE)
    return Parquet(classes, files.splits)
