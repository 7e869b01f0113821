"""WebDataset shards of others, as extract unpacks them: `<key>.jpg` beside `<key>.cls`, which holds the class.

A key is a path up to the first dot of the file's name; what else a sample has (`<key>.json`) is left out. The split is
the first folder that means one, such as the one that extract names after `train-000000.tar`. A class is a number, or a
name. Numbers stay labels: their names are those of `classes.json` (a list, or one under `classes`) or `classes.txt` (a
name on each line) in the folder around the shards, where there is such a list, else the numbers themselves.

The format: https://github.com/webdataset/webdataset#the-webdataset-format
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from larder.errors import InputError
from larder.tree.listing import LEFT_OUT, Listing, Row, TwiceError
from larder.tree.lists import fault, lines
from larder.tree.names import is_image_name, sorted_labels
from larder.tree.recipes import DEFAULT_SPLIT, Files, LeftOutError, RejectError, Sample, require_distinct
from larder.tree.splits import OUT
from larder.tree.survey import some

_CLASS = ".cls"
_LISTS = ("classes.json", "classes.txt")
_MOST_LABEL_BYTES, _MOST_LIST_BYTES = 1024, 64 << 20
_MOST_CLASSES = 100_000
_LONGEST_NUMBER = 9


class WebDataset:
    """Reads the class from the `.cls` beside an image, and the split from the folders."""

    names_samples = True

    def __init__(self, listing: Listing, classes: list[str], labels: dict[str, int], is_undivided: bool) -> None:
        self.classes, self.is_undivided = classes, is_undivided
        self._listing, self._labels = listing, labels

    def assign(self, path: str) -> Sample | None:
        """See `Recipe.assign`."""
        if not is_image_name(path):
            return None
        key = _key(path)
        sample = self._listing.find(f"{key}{_CLASS}", self._labels)
        if sample is None:
            raise RejectError(f"has no {_CLASS} with its key {key[-200:]!a}")
        if sample.split == LEFT_OUT:
            raise LeftOutError("left out by LARDER_SPLITS")
        ending = path[len(key) :]
        return sample._replace(name=sample.name.removesuffix(_CLASS) + ending)

    def absent(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.absent`."""
        for path, _ in self._listing.absent():
            yield path, "has no image with its key in the source"


def recognise(files: Files) -> str | None:
    """See `recipes`: at least every second image has a class beside it."""
    survey = files.survey
    return f"{_CLASS} beside images, as in WebDataset's shards" if 0 < survey.images <= 2 * survey.labels else None


def open(files: Files) -> WebDataset:
    """Read all classes."""
    listing, numbers, texts = Listing(files.scratch), set[int](), set[str]()
    undivided = divided = ""
    for path, content in files.read_all(_CLASS, _MOST_LABEL_BYTES):
        text, split = _label(path, content), _split_of(files, path)
        undivided, divided = (undivided or path, divided) if split is None else (undivided, divided or path)
        if split == OUT:
            split = LEFT_OUT
        elif _is_number(text):
            text = str(int(text))
            numbers.add(int(text))
        else:
            texts.add(text)
        if len(texts) + len(numbers) > _MOST_CLASSES:
            raise fault(path, f"is of more than {_MOST_CLASSES:,} classes")
        try:
            listing.add(Row(_key(path) + _CLASS, text, DEFAULT_SPLIT if split is None else split, path))
        except TwiceError:
            raise fault(path, "has the key of another one") from None
    if not (undivided or divided):
        raise InputError(
            f"no {_CLASS} beside images; the source has {files.survey.in_words()}",
            next_step="check LARDER_SOURCE, or set LARDER_RECIPE=auto",
        )
    if undivided and divided:
        raise InputError(
            f"{some([divided])} lies in a folder of a split, and {some([undivided])} in none",
            next_step="set LARDER_SPLITS, as in LARDER_SPLITS=FOLDER=validation, or FOLDER=- to leave it out",
        )
    listing.finish()
    classes, labels = _classes(files, numbers, texts)
    return WebDataset(listing, classes, labels, bool(undivided))


def _key(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"


def _label(path: str, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        raise fault(path, f"holds no class: {content[:40]!a}")
    return text


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER


def _split_of(files: Files, path: str) -> str | None:
    return next(filter(None, map(files.splits.find, path.split("/")[:-1])), None)


def _classes(files: Files, numbers: set[int], texts: set[str]) -> tuple[list[str], dict[str, int]]:
    """The classes' names, and their numbers by what `.cls` has. Raises InputError where these don't fit together."""
    if numbers and texts:
        raise InputError(
            f"some {_CLASS} hold numbers ({min(numbers)}), and others names ({min(texts)[:80]!a})",
            next_step="write all classes alike, then extract again",
        )
    path, names = _listed(files)
    if texts:
        if names and (unknown := texts - set(names)):
            raise fault(path, f"lacks the class {min(unknown)[:80]!a}")
        names = names or sorted_labels(texts)
        require_distinct(f"{_CLASS} have classes", names, "write the names of one class alike, then extract again")
        return names, {name: label for label, name in enumerate(names)}
    most = max(numbers, default=0)
    if names and most >= len(names):
        raise fault(path, f"names {len(names):,} classes, and there is the class {most:,}")
    if most >= _MOST_CLASSES:
        raise fault(_CLASS, f"hold the class {most:,}; at most {_MOST_CLASSES - 1:,} is one")
    width = max(2, len(str(most)))
    names = names or [f"{number:0{width}}" for number in range(most + 1)]
    return names, {str(number): number for number in numbers}


def _listed(files: Files) -> tuple[str, list[str]]:
    """The list of classes' names and where it is, if there is one. Raises InputError for a malformed list."""
    root = files.survey.root(files.splits)
    found = (base + name for base in dict.fromkeys(("", root)) for name in _LISTS)
    path = next((path for path in found if (files.folder / path).is_file()), "")
    if path.endswith(".txt"):
        names = [line.text for line in lines(files, path)]
    elif path:
        files.require_intact(path)
        names = _parsed(path, files)
    else:
        return "", []
    if len(set(names)) < len(names) or not 0 < len(names) <= _MOST_CLASSES:
        raise fault(path, "is no list of different classes")
    return path, names


def _parsed(path: str, files: Files) -> list[str]:
    try:
        with (files.folder / path).open("rb") as file:
            names = json.loads(file.read(_MOST_LIST_BYTES))
        names = names["classes"] if isinstance(names, dict) else names
    except (ValueError, KeyError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise fault(path, "holds no list of classes' names")
    return names
