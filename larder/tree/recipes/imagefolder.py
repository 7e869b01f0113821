"""One folder per class: `<split>/<class>/<file>`, or `<class>/<file>` without splits.

Classes are numbered in the order of their sorted names, as torchvision's ImageFolder does. Which of the two it is
follows from where the images lie: where folders of splits hold class folders, there are splits; else each folder is a
class, also one that is called `train`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from larder.errors import InputError
from larder.tree.recipes import (
    DEFAULT_SPLIT,
    Files,
    LeftOutError,
    RejectError,
    Sample,
    require_distinct,
    require_images,
    unplaced,
)  # fmt: skip
from larder.tree.splits import OUT
from larder.tree.survey import some


class ImageFolder:
    """Reads split and class from the folders.

    Args:
        classes: The names of the class folders.
        splits: By folder: the split that it is, or "-".
        with_splits: Whether class folders lie in those; else they hold the images, in one split.
        root: What is before all of that.
    """

    def __init__(self, classes: list[str], splits: Mapping[str, str], with_splits: bool, root: str = "") -> None:
        self.classes, self._splits, self._with_splits, self._root = classes, splits, with_splits, root
        self.is_undivided = not with_splits
        self._labels = {name: label for label, name in enumerate(classes)}

    def assign(self, path: str) -> Sample | None:
        """See `Recipe.assign`."""
        parts = path[len(self._root) :].split("/")
        if len(parts) == 1 or not path.startswith(self._root):
            return None
        if self._splits.get(parts[0]) == OUT:
            raise LeftOutError("left out by LARDER_SPLITS")
        split = self._splits.get(parts.pop(0)) if self._with_splits else DEFAULT_SPLIT
        if split is None:
            return None
        if len(parts) != 2 or parts[0] not in self._labels:
            wanted = "<split>/<class>/<file>" if self._with_splits else "<class>/<file>"
            raise RejectError(f"lies {'deeper' if len(parts) > 2 else 'higher'} than {wanted}")
        return Sample(split, self._labels[parts[0]], parts[1])

    def absent(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.absent`."""
        return ()


def recognise(files: Files) -> str | None:
    """See `recipes`: some images lie in folders that may be classes."""
    root = files.survey.root(files.splits)
    below = [folder.removeprefix(root) for folder in files.survey.folders]
    if any("/" in folder and files.splits.find(folder.partition("/")[0]) for folder in below):
        return "class folders in folders of splits"
    flat = [folder for folder in below if folder]
    return "a folder for each class" if any(not files.splits.find(folder) for folder in flat) else None


def open(files: Files) -> ImageFolder:
    """Find out whether there are splits, and collect the classes."""
    require_images(files)
    root = files.survey.root(files.splits)
    below = [folder.removeprefix(root) for folder in files.survey.folders if f"{folder}/" != root and folder]
    tops = {folder.partition("/")[0] for folder in below}
    if unused := files.splits.unused(tops):
        raise InputError(
            f"LARDER_SPLITS names {some(unused)}, and the source has the folders {some(sorted(tops)) or '(none)'}",
            next_step="correct LARDER_SPLITS",
        )
    splits = {name: split for name in tops if (split := files.splits.find(name)) is not None}
    below = [folder for folder in below if splits.get(folder.partition("/")[0]) != OUT]
    with_splits = _have_splits(splits, below, bool(files.splits.given))
    if with_splits:
        classes = {parts[1] for folder in below if len(parts := folder.split("/")) == 2}
    else:
        splits = {name: split for name, split in splits.items() if split == OUT}
        classes = {folder for folder in below if "/" not in folder}
    if not classes:
        raise _no_classes(tops)
    require_distinct("the source has classes", classes, "give the folders of one class one name, then extract again")
    return ImageFolder(sorted(classes), splits, with_splits, root)


def _have_splits(splits: Mapping[str, str], below: list[str], given: bool) -> bool:
    """Whether the folders at the top are splits, or classes; `given` says that LARDER_SPLITS names some.

    Raises InputError where some are, and others may be either, or where nothing tells.
    """
    tops = {folder.partition("/")[0] for folder in below}
    with_classes = {folder.partition("/")[0] for folder in below if "/" in folder}
    known = tops & splits.keys()
    if with_classes & known or (given and known):
        if others := tops - known:
            raise unplaced(others, f"{some(sorted(known))} beside {'it' if len(others) == 1 else 'them'} are splits")
        return True
    if with_classes == tops and tops:
        raise unplaced(tops, "in class folders, but none of these names is known as a split's")
    if known and known == tops:
        raise _no_classes(tops)
    if len({splits[name] for name in known}) > 1:
        raise InputError(
            f"images lie directly in {some(sorted(tops))}, and {some(sorted(known))} may be splits or classes",
            next_step="set LARDER_SPLITS=none if each of these folders is a class; else choose another recipe with "
            "LARDER_RECIPE (food11, csv)",
        )
    return False


def _no_classes(tops: set[str]) -> InputError:
    return InputError(
        "no class folders: expected <split>/<class>/<file> or <class>/<file>; "
        f"the source has the folders {some(sorted(tops), 20) or '(none)'}",
        next_step="check LARDER_SOURCE, or choose another recipe with LARDER_RECIPE (food11, csv)",
    )
