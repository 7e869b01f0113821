"""Indexes of files and of samples, read as streams and by path."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from larder.contract import IndexEntry, SampleEntry, parse_index, parse_samples
from larder.entries import MAX_INT64
from larder.errors import LarderError
from larder.stream.index_parser import IndexParser
from services.verify.sorted_index import SeenEntries, SortedIndex
from tests import hostile
from tests.fuzz.mutations import mutated

FILES = [IndexEntry(f"training/class_00/{number}.jpg", number, f"{number:064x}", 0, 9, 9, "a") for number in range(3)]
SAMPLES = [SampleEntry("training/shard-000000.tar", 512, 9, f"{number:064x}", 0, f"a/{number}") for number in range(3)]
_LINES = [line(FILES[0].to_json().encode())[:5000] + b"\n" for line in hostile.LINES.values()]
SEEDS = [
    "".join(f"{entry.to_json()}\n" for entry in FILES).encode(),
    "".join(f"{entry.to_json()}\n" for entry in SAMPLES).encode(),
    "".join(f"{entry._replace(offset=2048 * at + 512).to_json()}\n" for at, entry in enumerate(SAMPLES)).encode(),
    *_LINES,
]


def target(data: bytes, folder: Path) -> None:
    """Read it in all ways. An entry that is read must be written back unchanged."""
    place = folder / "index.jsonl"
    place.write_bytes(data)
    try:
        for entry in parse_index(place, classes=1):
            assert IndexEntry.checked(entry.to_json()) == entry
    except LarderError as error:
        assert len(error.what) < 1000
    try:
        for sample in parse_samples(place):
            assert SampleEntry.checked(sample.to_json()) == sample
    except LarderError as error:
        assert len(error.what) < 1000
    _compare(data)
    try:
        index = SortedIndex(place)
        marks = SeenEntries(index)
        for entry in index:
            if (found := index.find_offset(entry.path)) is not None:
                marks.add(found)
        marks.first_missing()
    except ValueError:
        pass


def _compare(data: bytes) -> None:
    """Samples that are parsed together are those that are parsed line by line."""
    parser = IndexParser("training", MAX_INT64, "the folder", "the index", lambda _: None)
    parser.feed(data[: len(data) // 2])
    parser.feed(data[len(data) // 2 :])
    try:
        table = parser.finish()
    except LarderError as error:
        assert len(error.what) < 1000
        return
    samples = [sample for sample in parse_samples(io.BytesIO(data)) if sample.file.startswith("training/")]
    assert [table.shards[shard] for shard in table.shard] == [sample.file for sample in samples]
    assert table.offset.tolist() == [sample.offset for sample in samples]
    assert table.length.tolist() == [sample.bytes for sample in samples]
    assert table.labels(np.arange(len(samples))).tolist() == [sample.label for sample in samples]


fuzz = mutated(SEEDS, target)
