"""larder.rclone: the events of a copy, by a real rclone between folders."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from larder import rclone
from larder.store import StoreSettings

STORE = StoreSettings.load("test", [], {})
LIMITS = rclone.CopyLimits(transfers=2, bytes_per_second=0, stall_seconds=60)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with two files of 1,000 bytes."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_bytes(name.encode() * 1000)
    return folder


def test_copy_yields_the_files_and_bytes_that_it_has_copied(source: Path, tmp_path: Path) -> None:
    events = list(rclone.copy(STORE, str(source), str(tmp_path / "copy"), ["a", "b"], LIMITS))
    assert {event.name for event in events if isinstance(event, rclone.FileCopied)} == {"a", "b"}
    assert sum(event.bytes for event in events if isinstance(event, rclone.BytesCopied)) == 2000
    assert not [event for event in events if isinstance(event, rclone.CopyFailure)]
    assert (tmp_path / "copy" / "b").read_bytes() == b"b" * 1000


def test_copy_yields_a_failure_for_a_file_that_it_cannot_write(source: Path, tmp_path: Path) -> None:
    (tmp_path / "copy" / "b").mkdir(parents=True)
    events = list(rclone.copy(STORE, str(source), str(tmp_path / "copy"), ["a", "b"], LIMITS))
    assert [event for event in events if isinstance(event, rclone.FileCopied)] == [rclone.FileCopied("a")]
    assert any(isinstance(event, rclone.CopyFailure) for event in events), events


def test_copy_stops_rclone_when_its_events_are_closed(source: Path, tmp_path: Path) -> None:
    slow = LIMITS._replace(bytes_per_second=1 << 20)
    (source / "large").write_bytes(bytes(50 << 20))
    events = rclone.copy(STORE, str(source), str(tmp_path / "copy"), ["large"], slow)
    with closing(events):
        next(events)
    assert not (tmp_path / "copy" / "large").exists()
