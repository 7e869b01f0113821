"""The files of records."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from larder.bench.record_folder import reserve
from larder.errors import StorageError


def test_writes_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    with reserve(folder, "arm-20260101T000000Z") as place:
        assert not place.path.exists()
        place.write({"imgs/s": 1.5})
    assert [path.name for path in folder.iterdir()] == ["arm-20260101T000000Z.json"]
    assert json.loads(place.path.read_text()) == {"imgs/s": 1.5}


def test_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("mine")
    with reserve(tmp_path, "a") as second, reserve(tmp_path, "a") as third:  # at the same time
        second.write({})
        third.write({})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-2.json", "a-3.json", "a.json"]
    assert (tmp_path / "a.json").read_text() == "mine"


def test_a_failed_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), reserve(tmp_path, "a"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"results=.*can't be written"), reserve(tmp_path / "file", "a"):
        pass


def test_a_read_only_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # root, who runs tests in containers, may write anywhere
    with pytest.raises(StorageError, match="permission denied"), reserve(tmp_path, "a"):
        pass
