"""One folder per class: `<split>/<class>/<file>`, `<class>/<split>/<file>`, or `<class>/<file>` without splits.

Classes are numbered in the order of their sorted names, as in torchvision's ImageFolder. The recipe derives the layout
from where the images lie. There are splits if folders with splits' names contain class folders, or if all class folders
contain only folders with splits' names. Otherwise each folder is a class, even one called `train`. Names that merely
resemble splits (train2017, testA) are ambiguous, and an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from larder.errors import InputError
from larder.splits import find_known_split, find_similar_split, find_split_in_name
from larder.tree.recipes import (
    DEFAULT_SPLIT,
    AssignedSample,
    LeftOutError,
    RecipeFiles,
    RejectError,
    quote_for_setting,
    require_distinct,
    require_images,
    require_splits_used,
    unknown_folders_error,
)
from larder.tree.source_summary import first_names
from larder.tree.splits import OUT, SplitNames

_SPLITS_OR_CLASSES = (
    "set LARDER_SPLITS=none if each of these is a class; else name the images' classes in a table (LARDER_CSV), "
    "or choose another recipe with LARDER_RECIPE (food11, csv)"
)


class ImageFolderRecipe:
    """Recipe that takes split and class from the folders.

    Args:
        classes: Names of the class folders.
        splits: The split of each top folder, by name; "-" leaves the folder out.
        with_splits: Whether there are split folders. If False, all images are of one split.
        root: Prefix of all paths of the dataset.
        classes_first: Whether split folders lie in class folders.
    """

    def __init__(
        self,
        classes: list[str],
        splits: Mapping[str, str],
        with_splits: bool,
        root: str = "",
        classes_first: bool = False,
    ) -> None:
        self.classes, self._splits, self._with_splits, self._root = classes, splits, with_splits, root
        self._classes_first = classes_first
        self.is_undivided = not with_splits
        self._labels = {name: label for label, name in enumerate(classes)}

    def assign(self, path: str) -> AssignedSample | None:
        """See `Recipe.assign`."""
        parts = path[len(self._root) :].split("/")
        if len(parts) == 1 or not path.startswith(self._root):
            return None
        if self._classes_first and len(parts) > 2:
            parts[:2] = parts[1::-1]
        if self._splits.get(parts[0]) == OUT:
            raise LeftOutError("left out by LARDER_SPLITS")
        split = self._splits.get(parts.pop(0)) if self._with_splits else DEFAULT_SPLIT
        if split is None:
            return None
        if len(parts) != 2 or parts[0] not in self._labels:
            expected = "<split>/<class>/<file>" if self._with_splits else "<class>/<file>"
            expected = "<class>/<split>/<file>" if self._classes_first else expected
            raise RejectError(f"lies {'deeper' if len(parts) > 2 else 'higher'} than {expected}")
        return AssignedSample(split, self._labels[parts[0]], parts[1])

    def missing_files(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.missing_files`."""
        return ()


def recognize(files: RecipeFiles) -> str | None:
    """Detect images in folders that may be classes; see `recipes`."""
    root = files.summary.root(files.splits)
    below = [folder.removeprefix(root) for folder in files.summary.folders]
    if any("/" in folder and files.splits.find(folder.partition("/")[0]) for folder in below):
        return "class folders in folders of splits"
    if _are_classes_first(below, files.splits):
        return "folders of splits in class folders"
    flat = [folder for folder in below if folder]
    return "a folder for each class" if any(not files.splits.find(folder) for folder in flat) else None


def open(files: RecipeFiles) -> ImageFolderRecipe:
    """Determine whether there are splits, and collect the classes."""
    require_images(files)
    root = files.summary.root(files.splits)
    below = [folder.removeprefix(root) for folder in files.summary.folders if f"{folder}/" != root and folder]
    if classes_first := _are_classes_first(below, files.splits):
        below = ["/".join(reversed(folder.split("/"))) for folder in below]
    tops = {folder.partition("/")[0] for folder in below}
    require_splits_used(files.splits, tops)
    splits = {name: split for name in tops if (split := files.splits.find(name)) is not None}
    below = [folder for folder in below if splits.get(folder.partition("/")[0]) != OUT]
    with_splits = _have_splits(splits, below, bool(files.splits.given))
    if with_splits:
        classes = {parts[1] for folder in below if len(parts := folder.split("/")) == 2}
        _require_labels(below, root)
    else:
        splits = {name: split for name, split in splits.items() if split == OUT}
        classes = {folder for folder in below if "/" not in folder}
        if not files.splits.none:
            _require_no_splits(classes)
    if not classes:
        raise _no_classes_error(tops)
    require_distinct("the source has classes", classes, "give the folders of one class one name, then extract again")
    return ImageFolderRecipe(sorted(classes), splits, with_splits, root, classes_first)


def _are_classes_first(below: list[str], names: SplitNames) -> bool:
    """Return whether all images lie in split folders inside class folders."""
    pairs = [folder.split("/") for folder in below]
    if not pairs or any(len(pair) != 2 or names.find(pair[1]) is None for pair in pairs):
        return False
    return any(names.find(pair[0]) is None for pair in pairs)


def _require_labels(below: list[str], root: str) -> None:
    """Raise InputError for split folders without class folders directly in them."""
    depths: dict[str, set[int]] = {}
    for folder in below:
        depths.setdefault(folder.partition("/")[0], set()).add(folder.count("/"))
    unlabelled = sorted(split for split, levels in depths.items() if levels == {0})
    if 0 < len(unlabelled) < len(depths):
        left_out = ",".join(f"{quote_for_setting(split)}=-" for split in unlabelled[:3])
        raise InputError(
            f"the images in {first_names(unlabelled)} don't lie in class folders, and those in other splits do",
            next_step=f"set LARDER_SPLITS={left_out} to leave out what has no labels, or put the images into class "
            "folders, then extract again",
        )
    if deeper := sorted(split for split, levels in depths.items() if min(levels) > 1):
        first = next(folder for folder in sorted(below) if folder.partition("/")[0] == deeper[0])
        raise InputError(
            f"the images in {first_names(deeper)} lie one folder or more below <split>/<class>, as in "
            f"{first_names([root + first])}",
            next_step="move the class folders up, so that they lie directly in the splits' folders, then extract "
            "again; or name the images' classes in a table (LARDER_CSV)",
        )


def _require_no_splits(classes: Iterable[str]) -> None:
    """Raise InputError for folders of images whose names look like splits, not classes."""
    names = set(classes)
    if not names:
        return
    similar = {name for name in names if find_similar_split(name) and not find_known_split(name)}
    containing = {name: split for name in names if (split := find_split_in_name(name))}
    if (
        similar
        or (len(containing) == len(names))
        or (2 * len(containing) >= len(names) and len(set(containing.values())) > 1)
    ):
        shown = sorted(similar or containing)
        raise InputError(
            f"images lie directly in {first_names(sorted(names))}, and {first_names(shown)} may be splits or classes",
            next_step=_SPLITS_OR_CLASSES,
        )


def _have_splits(splits: Mapping[str, str], below: list[str], given: bool) -> bool:
    """Return whether the top folders are splits rather than classes.

    `given` is whether LARDER_SPLITS names some. Raise InputError if the folders are ambiguous.
    """
    tops = {folder.partition("/")[0] for folder in below}
    with_classes = {folder.partition("/")[0] for folder in below if "/" in folder}
    known = tops & splits.keys()
    if with_classes & known or (given and known):
        if unknown := tops - known:
            raise unknown_folders_error(
                unknown, f"{first_names(sorted(known))} beside {'it' if len(unknown) == 1 else 'them'} are splits"
            )
        return True
    if with_classes == tops and tops:
        _require_splits_in_classes(below)
        _require_splits_on_top(below)
        raise unknown_folders_error(tops, "in class folders, but none of these names is known as a split's")
    if known and known == tops:
        raise _no_classes_error(tops)
    if len({splits[name] for name in known}) > 1:
        raise InputError(
            f"images lie directly in {first_names(sorted(tops))}, and {first_names(sorted(known))} may be "
            f"splits or classes",
            next_step=_SPLITS_OR_CLASSES,
        )
    return False


def _require_splits_in_classes(below: list[str]) -> None:
    """Raise InputError if only some of the folders in class folders have known names of splits."""
    inside = {folder.partition("/")[2] for folder in below}
    known = {name for name in inside if find_known_split(name)}
    if known and known != inside and not any("/" in name for name in inside):
        raise unknown_folders_error(
            inside - known, f"{first_names(sorted(known))} beside, in class folders, are splits"
        )


def _require_splits_on_top(below: list[str]) -> None:
    """Raise InputError if there are split folders below the top: images elsewhere kept them from being detected."""
    parts = [folder.split("/") for folder in sorted(below)]
    deeper = [(at, part) for part in parts for at in range(1, len(part) - 1) if find_known_split(part[at])]
    if not deeper:
        return
    at, first = deeper[0]
    elsewhere = ["/".join(part) for part in parts if len(part) <= at or not find_known_split(part[at])]
    raise InputError(
        f"the splits' folders lie deeper, as in {first_names(['/'.join(first)])}"
        + (f", and other images in {first_names(elsewhere)}" if elsewhere else ""),
        next_step=f"leave other images out of the source, or set LARDER_SOURCE to the folder "
        f"{first_names(['/'.join(first[:at])])} in it, then extract again",
    )


def _no_classes_error(tops: set[str]) -> InputError:
    return InputError(
        "no class folders: expected <split>/<class>/<file> or <class>/<file>; "
        f"the source has the folders {first_names(sorted(tops), 20) or '(none)'}",
        next_step="check LARDER_SOURCE, or choose another recipe with LARDER_RECIPE (food11, csv)",
    )
