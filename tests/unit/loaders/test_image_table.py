"""The images of a split, in little memory, and compared with a listing."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from larder.bucket import ListedObject
from larder.contract import IndexEntry
from larder.loaders.image_table import ImageTable

# In the index's order: by UTF-8's bytes, where a sign beyond the basic plane comes after all others.
PATHS = [
    "test/class_00/9.jpg",
    "training/class_00/a b.jpg",
    "training/class_00/ä.jpg",
    "training/class_01/\uffee.jpg",
    "training/class_01/\U0001f34e.jpg",
    "training2/class_00/1.jpg",
]
TRAINING = PATHS[1:5]


@pytest.fixture
def objects() -> ImageTable:
    labels = [int("class_01" in path) for path in PATHS]
    entries = [IndexEntry(path, 10 + n, "0" * 64, labels[n]) for n, path in enumerate(PATHS)]
    counted = []
    made = ImageTable(entries, "training", lambda: counted.append(1))
    assert len(counted) == len(made)
    return made


def listed(paths: Sequence[str] = tuple(PATHS)) -> list[ListedObject]:
    return [ListedObject(path, 10 + PATHS.index(path), "") for path in paths]


def test_holds_one_split(objects: ImageTable) -> None:
    assert [objects.path(number) for number in range(len(objects))] == TRAINING
    assert [objects.label(number) for number in range(len(objects))] == [0, 0, 1, 1]


def test_nothing_is_missing_in_whatever_order_a_store_lists(objects: ImageTable) -> None:
    items = [*listed(), ListedObject("training/extra.jpg", 1, ""), ListedObject("zzz", 1, ""), ListedObject("", 0, "")]
    for seed in range(5):
        random.Random(seed).shuffle(items)
        assert objects.first_missing(items, lambda: None) is None


@pytest.mark.parametrize("path", TRAINING)
def test_names_what_is_missing_or_of_another_length(objects: ImageTable, path: str) -> None:
    remaining = [item for item in listed() if item.path != path]
    assert objects.first_missing(remaining, lambda: None) == path
    assert objects.first_missing([*remaining, ListedObject(path, 9, "")], lambda: None) == path


def test_an_empty_split_misses_nothing(objects: ImageTable) -> None:
    empty = ImageTable([], "training", lambda: None)
    assert (len(empty), empty.first_missing(listed(), lambda: None)) == (0, None)
