"""Manifest and index: the same content gives the same bytes, and invalid content clear errors."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larder.contract import IndexEntry, IndexWriter, find_manifest, read_manifest
from larder.errors import InputError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBER = st.none() | st.integers(0)


@given(st.builds(IndexEntry, TEXT, st.integers(0), TEXT, NUMBER, NUMBER, NUMBER, st.none() | TEXT))
def test_index_lines_read_back(entry: IndexEntry) -> None:
    line = entry.to_json()
    assert "\n" not in line
    assert IndexEntry.from_json(line) == entry


def test_no_manifest_is_not_done(tmp_path: Path) -> None:
    assert find_manifest(tmp_path) is None
    (tmp_path / "file").touch()
    assert find_manifest(tmp_path / "file") is None
    with pytest.raises(InputError, match="no finished data") as caught:
        read_manifest(tmp_path, made_by="make it")
    assert "make it" in caught.value.next_step


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": 2}', b"\xff"])
def test_what_is_no_manifest_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "_larder").mkdir()
    (tmp_path / "_larder" / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match="is not a manifest") as caught:
        find_manifest(tmp_path)
    assert "LARDER_FORCE=true" in caught.value.next_step


@pytest.mark.parametrize("lines", [1, 1000], ids=["at-the-end", "on-the-way"])
def test_a_full_disk_is_named(lines: int) -> None:
    with pytest.raises(OSError, match="No space") as caught, IndexWriter(Path("/dev/full")) as index:
        for number in range(lines):
            index.add(IndexEntry(f"t/c/{number}.jpg", 1, "0" * 64))
    assert caught.value.filename == "/dev/full"
