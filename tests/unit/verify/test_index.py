"""An index in which entries are found without holding them."""

from __future__ import annotations

from pathlib import Path

import pytest

from larder.contract import IndexEntry, write_index
from services.verify.index import Marks, SortedIndex

NAMES = ["a.jpg", "a/b.jpg", "ä.jpg", "\u2028.jpg", 'quo"te\\.jpg', "tab\t.jpg", "\U0001f35c.jpg", "zz.jpg"]


def make(folder: Path, paths: list[str]) -> SortedIndex:
    entries = [IndexEntry(path, number, f"{number:064x}", 0) for number, path in enumerate(paths)]
    write_index(folder / "index.jsonl", sorted(entries, key=lambda entry: entry.path.encode()))
    return SortedIndex(folder / "index.jsonl")


@pytest.mark.parametrize("count", [0, 1, 2, 500, 5000])
def test_every_entry_is_found_and_no_other(tmp_path: Path, count: int) -> None:
    paths = [f"training/class_{number % 11:02d}/{number}.jpg" for number in range(count)]
    index = make(tmp_path, paths)
    assert [entry.path for entry in index] == sorted(paths)
    for number, path in enumerate(paths):
        found = index.find(path)
        assert found is not None and (found.path, found.bytes) == (path, number)
    for absent in ("", "a", "training", "training/class_00/", "training/class_00/x.jpg", "zzz"):
        assert index.find(absent) is None


def test_any_name_is_found(tmp_path: Path) -> None:
    paths = NAMES + [f"x/{number}.jpg" for number in range(1000)]
    index = make(tmp_path, paths)
    assert [index.find(path) is not None for path in paths] == [True] * len(paths)
    assert index.find('quo"te.jpg') is None


def test_a_path_in_another_field_is_not_taken_for_one(tmp_path: Path) -> None:
    write_index(tmp_path / "index.jsonl", [IndexEntry("b.jpg", 1, "0" * 64, 0, source="a.jpg")])
    assert SortedIndex(tmp_path / "index.jsonl").find("a.jpg") is None


@pytest.mark.parametrize("left_out", [0, 1, 777, 1999])
def test_what_was_not_met_is_named(tmp_path: Path, left_out: int) -> None:
    paths = sorted(f"{number}" for number in range(2000))
    index = make(tmp_path, paths)
    marks = Marks(index)
    for number, path in enumerate(paths):
        place = index.place(path)
        assert place is not None
        if number != left_out:
            assert marks.add(place)
            assert not marks.add(place)
    missing = marks.first_missing()
    assert missing is not None and missing.path == paths[left_out]


def test_nothing_is_missing(tmp_path: Path) -> None:
    for paths in ([], ["a", "b"]):
        index = make(tmp_path, paths)
        marks = Marks(index)
        for path in paths:
            marks.add(index.place(path) or 0)
        assert marks.first_missing() is None
