"""Read classes and splits of samples in WebDataset shards.

The class is in `<key>.cls`; the names of shards and folders tell the split. A class is a number or a name. If there is
a list of names beside the shards, a number is an index into it. The list is `classes.json` (a list, or one under
`classes`) or `classes.txt` (one name per line). Without a list, a number is a name like any other (larder.tree.labels).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence, Set

from larder.errors import InputError
from larder.sources.archive_folders import name_archive_folder
from larder.tree.labels import is_number, number_classes
from larder.tree.lists import list_error, read_lines
from larder.tree.recipes import (
    RecipeFiles,
    require_distinct,
    require_no_unknown_splits,
    require_splits_used,
    suggest_splits,
)
from larder.tree.source_summary import first_names
from larder.tree.splits import SplitNames

CLASS = ".cls"
MAX_LABEL_BYTES = 1024
MAX_CLASSES = 100_000
_LISTS = ("classes.json", "classes.txt")
_MAX_LIST_BYTES = 64 << 20


def key_of(path: str) -> str:
    """Return a file's key: its path up to the first dot of its name."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"


def label_in(path: str, content: bytes) -> str:
    """Return the label in a `.cls` file, without leading zeros.

    Args:
        path: Path of the file, for messages.
        content: Its content.

    Raises:
        InputError: If it isn't a valid label.
    """
    if len(content) > MAX_LABEL_BYTES:
        raise _label_error(path, f"has more than {MAX_LABEL_BYTES:,} bytes, too many for a class")
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        raise _label_error(path, f"holds no class: {content[:40]!a}")
    return str(int(text)) if is_number(text) else text


def split_of(names: SplitNames, folders: str) -> str | None:
    """Return the split of the first folder in a path that has a split's name, ignoring a shard number in the name."""
    parts = folders.split("/")
    return next(
        (split for part in parts if (split := names.find(part) or names.find(name_archive_folder(part, "set")))), None
    )


def require_splits(names: SplitNames, folders: Set[str]) -> bool:
    """Return whether the dataset has no splits.

    Args:
        names: The names of splits.
        folders: The folders of all samples; "" is the top.

    Raises:
        InputError: If only some folders have the name of a split, a folder's name only resembles one, or LARDER_SPLITS
            names unknown folders.
    """
    parts = {part for folder in folders for part in folder.split("/") if part}
    require_splits_used(names, parts | {name_archive_folder(part, "set") for part in parts})
    without = sorted(folder for folder in folders if split_of(names, folder) is None)
    if not without:
        return False
    if len(without) < len(folders):
        divided = min(folders - set(without))
        raise InputError(
            f"{first_names([divided])} has the name of a split, and {first_names(without)} has not",
            next_step=f"set LARDER_SPLITS, as in LARDER_SPLITS={suggest_splits(without, _stem)}; FOLDER=- leaves "
            "one out",
        )
    require_no_unknown_splits(without, names, _stem)
    return True


def _stem(folder: str) -> str:
    """Return a folder's name without a shard's number."""
    return name_archive_folder(folder, "set")


def find_names(files: RecipeFiles, bases: Iterable[str]) -> tuple[str, list[str]]:
    """Return path and names of the first list of classes below `bases`; "" and no names if there is none.

    Raises:
        InputError: If the list is malformed.
    """
    paths = (base + name for base in dict.fromkeys(bases) for name in _LISTS)
    path = next((path for path in paths if files.exists(path)), "")
    if path.endswith(".txt"):
        names = [line.text for line in read_lines(files, path)]
    elif path:
        files.require_intact(path)
        names = _read_json_list(path, files)
    else:
        return "", []
    if len(set(names)) < len(names) or not 0 < len(names) <= MAX_CLASSES:
        raise list_error(path, "is not a list of distinct classes")
    return path, names


def classes_in(labels: Collection[str], path: str, names: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Return the names of the classes, and the label number of each label text.

    Args:
        labels: The distinct labels found.
        path: Path of the list of classes, or "".
        names: Names in that list.

    Raises:
        InputError: If labels and list don't fit together, or classes look alike.
    """
    try:
        classes, label_numbers = number_classes(labels, names)
    except ValueError as fault:
        raise (list_error(path, str(fault)) if path else _label_error(f"the labels in {CLASS}", str(fault))) from None
    require_distinct(
        f"the labels in {CLASS} have classes", classes, "spell the names of one class the same way, then extract again"
    )
    return classes, label_numbers


def _label_error(position: str, what: str) -> InputError:
    """Return the InputError for a label beside an image."""
    return InputError(
        f"{position}: {what}", next_step=f"correct the shards: each {CLASS} holds one class, a number or a name"
    )


def _read_json_list(path: str, files: RecipeFiles) -> list[str]:
    try:
        with files.local(path).open("rb") as file:
            names = json.loads(file.read(_MAX_LIST_BYTES))
        names = names["classes"] if isinstance(names, dict) else names
    except (ValueError, KeyError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise list_error(path, "holds no list of classes' names")
    return names
