"""ImageNet (ILSVRC 2012 to 2017): training images in synset folders, validation images by a ground truth file.

The folders may lie at the top, in `train/`, or where Kaggle's archive has them (`ILSVRC/Data/CLS-LOC/train/`).
Validation images, `ILSVRC2012_val_<n>.JPEG`, lie in synset folders or in a single folder. In the second case, a text
file has their classes. Its lines name the images or follow their order, and contain one of these:

- a synset: `n01751748`, as in Kaggle's `LOC_val_solution.csv`;
- the image's name, and the synset's index in the sorted list of all synsets, from 0: `val.txt`;
- only ILSVRC's own number of the synset, from 1: `ILSVRC2012_validation_ground_truth.txt`. A file of the
  development kit maps numbers to synsets: `map_clsloc.txt` (`<synset> <number> <name>` on each line), or `meta.mat`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from larder.errors import InputError
from larder.splits import TRAINING, VALIDATION
from larder.tree.lists import ListLine, list_error, read_lines
from larder.tree.matlab import MAX_BYTES, Value, read_structs
from larder.tree.recipes import AssignedSample, LeftOutError, RecipeFiles, RejectError
from larder.tree.splits import OUT, SplitNames

_SYNSET = re.compile(r"n[0-9]{8}")
_VALIDATION = re.compile(r"ILSVRC20[0-9]{2}_val_([0-9]{8})", re.ASCII)
_TEST = re.compile(r"ILSVRC20[0-9]{2}_test_[0-9]{8}", re.ASCII)
_WORD = re.compile(r"[^\s,]+")
_TRUTH = re.compile(r"(.*/)?[^/]*(val|ground_?truth)[^/]*\.(txt|csv)", re.IGNORECASE)
_NUMBERS, _META = "map_clsloc.txt", "meta.mat"
_SYNSETS = ("LOC_synset_mapping.txt", "synset_words.txt", "synsets.txt")
_MAX_IMAGES, _MAX_DIGITS = 10_000_000, 9


class ImageNetRecipe:
    """Recipe that takes the class from the folder or from the ground truth."""

    def __init__(self, classes: list[str], splits: SplitNames, truth: dict[int, str], truth_source: str) -> None:
        self.classes, self._splits, self._truth, self._truth_source = classes, splits, truth, truth_source
        self._labels = {name: label for label, name in enumerate(classes)}
        self._split_of: dict[str, str] = {}
        self._absent = set[int]()
        self._sees_validation = False

    def assign(self, path: str) -> AssignedSample | None:
        """See `Recipe.assign`."""
        *folders, name = path.split("/")
        if folders and folders[-1] in self._labels:
            folder = path.removesuffix(name)
            split = self._split_of.get(folder) or self._split_of.setdefault(folder, _split_of(folders, self._splits))
            if split == OUT:
                raise LeftOutError("left out by LARDER_SPLITS")
            return AssignedSample(split, self._labels[folders[-1]], name)
        if _TEST.match(name):
            raise LeftOutError("test images, whose classes aren't public")
        match = _VALIDATION.match(name)
        if match is None:
            return None
        if not self._sees_validation:
            self._sees_validation, self._absent = True, set(self._truth)
        synset = self._truth.get(int(match[1]))
        if synset is None:
            truth_source = self._truth_source or "a ground truth, which the source lacks (see the recipe imagenet)"
            raise RejectError(f"has no class in {truth_source}")
        self._absent.discard(int(match[1]))
        return AssignedSample(VALIDATION, self._labels[synset], name)

    def missing_files(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.missing_files`."""
        for number in sorted(self._absent):
            yield f"ILSVRC2012_val_{number:08}.JPEG", f"is named in {self._truth_source}, but is not in the source"


def recognize(files: RecipeFiles) -> str | None:
    """Detect synset folders and a ground truth; see `recipes`."""
    synsets, truths = _synsets_of(files), _truths(files)
    return f"folders named by synset, and {truths[0]}" if synsets and truths else None


def open(files: RecipeFiles) -> ImageNetRecipe:
    """Read the ground truth, if there is one."""
    synsets = _synsets_of(files)
    read = [(path, entries) for path in _truths(files) if (entries := _read(files, path))]
    # Prefer synsets, which need no mapping; then image names, which don't depend on the order of lines.
    read.sort(key=lambda item: (not item[1][0].synset, not item[1][0].image))
    path, truth = "", dict[int, str]()
    if read:
        path, entries = read[0]
        truth = _resolve(files, path, entries, synsets)
    classes = synsets | set(truth.values())
    if not classes:
        raise InputError(
            f"no ImageNet: no folder is named by a synset, such as n01440764; the source has "
            f"{files.summary.describe()}",
            next_step="check LARDER_SOURCE, or set LARDER_RECIPE=auto",
        )
    return ImageNetRecipe(sorted(classes), files.splits, truth, path)


class Entry(NamedTuple):
    """A line of a ground truth.

    `image` is the number in the image's name, if the line has one. The class is either `synset` or `number`.
    """

    image: int | None
    synset: str
    number: int
    position: str


def _synsets_of(files: RecipeFiles) -> set[str]:
    last = (folder.rpartition("/")[2] for folder in files.summary.folders)
    return {name for name in last if _SYNSET.fullmatch(name)}


def _split_of(folders: list[str], splits: SplitNames) -> str:
    """Return the split of the innermost folder with a split's name (`train`, `ILSVRC2012_img_train`)."""
    for folder in reversed(folders[:-1]):
        if split := splits.find(folder) or splits.find(folder.rpartition("_")[2]):
            return split
    return TRAINING


def _truths(files: RecipeFiles) -> list[str]:
    """Return files that may be a ground truth. Those in `ImageSets` number the images, not their classes."""
    return [path for path in files.summary.lists if _TRUTH.fullmatch(path) and "ImageSets/" not in path]


def _read(files: RecipeFiles, path: str) -> list[Entry]:
    """Return the entries of a ground truth; none if the file is something else."""
    entries: list[Entry] = []
    for line in read_lines(files, path):
        entry = _parse(line)
        if entry is not None and len(entries) < _MAX_IMAGES:
            entries.append(entry)
        elif entries or line.text != "ImageId,PredictionString":
            return []
    return entries


def _parse(line: ListLine) -> Entry | None:
    words = _WORD.findall(line.text)
    image = next((int(match[1]) for word in words if (match := _VALIDATION.match(word.rpartition("/")[2]))), None)
    synset = next((word for word in words if _SYNSET.fullmatch(word)), "")
    if not synset and not (words and _is_number(words[-1])):
        return None
    return Entry(image, synset, 0 if synset else int(words[-1]), line.position)


def _is_number(word: str) -> bool:
    return word.isdecimal() and len(word) <= _MAX_DIGITS


def _resolve(files: RecipeFiles, path: str, entries: list[Entry], synsets: set[str]) -> dict[int, str]:
    """Return the synset of every validation image, by the image's number."""
    by_number: dict[int, str] = {}
    if not entries[0].synset:
        by_number = _numbers(files, path, synsets) if entries[0].image is None else _sorted_numbers(files, synsets)
    truth: dict[int, str] = {}
    for position, entry in enumerate(entries, start=1):
        synset = entry.synset or by_number.get(entry.number)
        if synset is None:
            raise list_error(entry.position, f"has the class {entry.number}, of {len(by_number):,} classes")
        image = position if entry.image is None else entry.image
        if truth.setdefault(image, synset) != synset:
            raise list_error(entry.position, f"gives image {image} a second class")
    return truth


def _numbers(files: RecipeFiles, path: str, synsets: set[str]) -> dict[int, str]:
    """Return the synsets by ILSVRC's own numbers, which follow no order."""
    lists = [name for name in files.summary.lists if f"/{name}".endswith(f"/{_NUMBERS}")]
    if not lists:
        if metas := [name for name in files.summary.lists if f"/{name}".endswith(f"/{_META}")]:
            return _numbers_in_meta(files, metas[0])
        raise InputError(
            f"{path} has ILSVRC's own numbers of {len(synsets):,} classes, and no {_NUMBERS} or {_META} maps "
            "them to synsets",
            next_step=f"add {_META} of ILSVRC's development kit, or a text file {_NUMBERS} with `<synset> <number>` on "
            "each line, as in `n02119789 1`; then extract again",
        )
    numbers: dict[int, str] = {}
    for line in read_lines(files, lists[0]):
        synset, number, *_ = [*line.text.split(), "", ""]
        if not _SYNSET.fullmatch(synset) or not _is_number(number):
            raise list_error(line.position, f"expected <synset> <number> <name>, found {line.text[:80]!r}")
        numbers[int(number)] = synset
    return numbers


def _numbers_in_meta(files: RecipeFiles, path: str) -> dict[int, str]:
    files.require_intact(path)
    with (files.folder / path).open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        return dict(_parse_row(row.get("ILSVRC2012_ID"), row.get("WNID")) for row in read_structs(data))
    except ValueError as fault:
        raise InputError(
            f"{path} can't be read: {fault}",
            next_step=f"get it again, or add a text file {_NUMBERS} with `<synset> <number>` on each line, as in "
            "`n02119789 1`; then extract again",
        ) from None


def _parse_row(number: Value, synset: Value) -> tuple[int, str]:
    if isinstance(number, str) or number is None or number != number // 1 or not isinstance(synset, str):
        raise ValueError("its elements lack ILSVRC2012_ID, a number, or WNID, a synset")
    if not _SYNSET.fullmatch(synset):
        raise ValueError(f"it has the synset {synset[:40]!a}")
    return int(number), synset


def _sorted_numbers(files: RecipeFiles, synsets: set[str]) -> dict[int, str]:
    """Return the synsets by their index in the sorted list of all synsets, or else of the folders."""
    for name in files.summary.lists:
        if name.rpartition("/")[2] in _SYNSETS:
            listed = [line.text.split()[0] for line in read_lines(files, name)]
            if synsets <= set(listed):
                synsets = set(listed)
                break
    return dict(enumerate(sorted(synsets)))
