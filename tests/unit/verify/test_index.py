"""An index that finds entries without holding them in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from larder.contract import IndexEntry, IndexWriter, write_index
from services.verify import sorted_index as index_module
from services.verify.sorted_index import SeenEntries, SortedIndex

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
        entry = index.find(path)
        assert entry is not None and (entry.path, entry.bytes) == (path, number)
    for absent in ("", "a", "training", "training/class_00/", "training/class_00/x.jpg", "zzz"):
        assert index.find(absent) is None


def test_any_name_is_found(tmp_path: Path) -> None:
    paths = NAMES + [f"x/{number}.jpg" for number in range(1000)]
    index = make(tmp_path, paths)
    assert [index.find(path) is not None for path in paths] == [True] * len(paths)
    assert index.find('quo"te.jpg') is None


def test_a_path_in_another_field_is_not_taken_for_the_path(tmp_path: Path) -> None:
    write_index(tmp_path / "index.jsonl", [IndexEntry("b.jpg", 1, "0" * 64, 0, source="a.jpg")])
    assert SortedIndex(tmp_path / "index.jsonl").find("a.jpg") is None


@pytest.mark.parametrize("left_out", [0, 1, 777, 1999])
def test_what_was_not_met_is_named(tmp_path: Path, left_out: int) -> None:
    paths = sorted(f"{number}" for number in range(2000))
    index = make(tmp_path, paths)
    marks = SeenEntries(index)
    for number, path in enumerate(paths):
        place = index.find_offset(path)
        assert place is not None
        if number != left_out:
            assert marks.add(place)
            assert not marks.add(place)
    missing = marks.first_missing()
    assert missing is not None and missing.path == paths[left_out]


def test_nothing_is_missing(tmp_path: Path) -> None:
    for paths in ([], ["a", "b"]):
        index = make(tmp_path, paths)
        marks = SeenEntries(index)
        for path in paths:
            marks.add(index.find_offset(path) or 0)
        assert marks.first_missing() is None


def test_few_blocks_however_long_the_index_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_BLOCK_BYTES", 100)
    monkeypatch.setattr(index_module, "_MAX_BLOCKS", 16)
    monkeypatch.setattr(index_module, "_MAPPED_BYTES", 1000)
    paths = sorted(f"{number}.jpg" for number in range(2000))
    index = make(tmp_path, paths)
    assert len(index._first_paths) <= 17
    assert all(index.find(path) is not None for path in paths)
    assert [entry.path for entry in index] == paths


def test_memory_stays_small_for_an_index_of_long_lines(tmp_path: Path) -> None:
    source = "x" * 60_000
    with IndexWriter(tmp_path / "index.jsonl") as writer:
        for number in range(4000):
            writer.add(IndexEntry(f"{number:06d}/" + "y" * 4000, 1, "0" * 64, source=source))
    before = mapped_bytes()
    index = SortedIndex(tmp_path / "index.jsonl")
    assert sum(1 for _ in index) == 4000
    assert mapped_bytes() - before < 100 << 20


def mapped_bytes() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    sizes = {name: int(line.split()[1]) << 10 for line in status for name in [line.split(":")[0]] if name[:3] == "Rss"}
    return sizes["RssFile"] + sizes["RssAnon"]


def test_a_path_that_nothing_could_have(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its path has more than 4,096 bytes"):
        make(tmp_path, ["x" * 5000])
