"""One folder per class: `<split>/<class>/<file>`, or `<class>/<file>` without splits.

Classes are numbered in the order of their sorted names, as torchvision's ImageFolder does.
"""

from __future__ import annotations

from collections.abc import Iterable

from larder.errors import InputError
from services.transform.recipes import SPLITS, Files, RejectError, Sample

_DEFAULT_SPLIT = "training"


class ImageFolder:
    """Reads split and class from the folders."""

    def __init__(self, classes: list[str], with_splits: bool) -> None:
        self.classes, self._with_splits = classes, with_splits
        self._labels = {name: label for label, name in enumerate(classes)}

    def assign(self, path: str) -> Sample | None:
        """See `Recipe.assign`."""
        parts = path.split("/")
        if len(parts) == 1 or (self._with_splits and parts[0] not in SPLITS):
            return None
        split = SPLITS[parts.pop(0)] if self._with_splits else _DEFAULT_SPLIT
        if len(parts) != 2 or parts[0] not in self._labels:
            wanted = "<split>/<class>/<file>" if self._with_splits else "<class>/<file>"
            raise RejectError(f"lies {'deeper' if len(parts) > 2 else 'higher'} than {wanted}")
        return Sample(split, self._labels[parts[0]], parts[1])

    def absent(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.absent`."""
        return ()


def open(files: Files) -> ImageFolder:
    """Find out whether there are splits, and collect the classes."""
    folders = {path.split("/")[0] for path in files.paths() if "/" in path}
    with_splits = any(name in SPLITS for name in folders)
    classes = {name for path in files.paths() if (name := _class_of(path, with_splits)) is not None}
    if not classes:
        raise InputError(
            "no class folders: expected <split>/<class>/<file> or <class>/<file>; "
            f"the source has the folders {', '.join(sorted(folders)[:20]) or '(none)'}",
            next_step="check LARDER_SOURCE, or choose another recipe with LARDER_RECIPE (food11, csv)",
        )
    return ImageFolder(sorted(classes), with_splits)


def _class_of(path: str, with_splits: bool) -> str | None:
    parts = path.split("/")
    if with_splits:
        return parts[1] if len(parts) == 3 and parts[0] in SPLITS else None
    return parts[0] if len(parts) == 2 else None
