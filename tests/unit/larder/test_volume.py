"""The slot: locked, swapped in whole, and cleared of what dead runs left."""

from pathlib import Path

import pytest

from larder import volume
from larder.contract import IndexEntry, Manifest, find_manifest, first_missing, read_index
from larder.errors import InputError, StorageError
from larder.ledger import Ledger
from larder.volume import Slot, require_space, swap_in


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    return Slot(tmp_path, "raw")


def make(slot: Slot, content: bytes) -> Manifest:
    with Ledger(slot.ledger_path, content.hex()) as ledger:
        slot.resume(ledger)
        (slot.staged / "file").write_bytes(content)
        ledger.add([IndexEntry("file", len(content), "0" * 64)])
        index = slot.write_index(ledger.entries())
        ledger.remove()
    manifest = Manifest(
        artifact="raw", dataset="x", classes=[], splits={}, input={}, settings={}, files=1, bytes=len(content),
        index=index,
    )  # fmt: skip
    slot.commit(manifest, {"a": 1})
    return manifest


@pytest.mark.parametrize("atomic", [True, False], ids=["exchange", "no exchange"])
def test_commit_replaces_all(slot: Slot, monkeypatch: pytest.MonkeyPatch, atomic: bool) -> None:
    if not atomic:
        monkeypatch.setattr(volume, "_exchange", lambda *_: False)
    for content in (b"one", b"two"):
        manifest = make(slot, content)
        assert (slot.folder / "file").read_bytes() == content
        assert find_manifest(slot.folder) == manifest
        assert first_missing(slot.folder, manifest) is None
        assert not slot.work.exists()


def test_swap_exchanges(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    swap_in(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "new").exists()
    assert (tmp_path / "new" / "old").exists()


def test_resume_clears_all_but_downloads(slot: Slot) -> None:
    for folder in (slot.staged, slot.work / "unwrapped" / "x", slot.downloads / "x"):
        folder.mkdir(parents=True)
    with Ledger(slot.ledger_path, "key") as ledger:
        assert not slot.resume(ledger)
    assert sorted(path.name for path in slot.work.iterdir() if path.is_dir()) == ["downloads", "new"]
    with Ledger(slot.ledger_path, "key") as ledger:
        assert slot.resume(ledger)


def test_only_one_writer(slot: Slot) -> None:
    with slot.lock(), pytest.raises(StorageError, match="another run"), slot.lock():
        pass
    with slot.lock():
        pass


def test_sweep_takes_only_what_is_dead(slot: Slot) -> None:
    slot.staged.mkdir(parents=True)
    slot.ledger_path.touch()
    slot.sweep()
    assert slot.staged.exists()
    slot.ledger_path.unlink()
    with slot.lock():
        slot.sweep()
        assert slot.staged.exists()
    slot.sweep()
    assert not slot.work.exists()


def test_require_space(tmp_path: Path) -> None:
    require_space(tmp_path, 1, "x")
    with pytest.raises(StorageError, match=r"x needs 1000000000000\.000 GB"):
        require_space(tmp_path, 10**21, "x")


def test_a_changed_index_is_told(slot: Slot) -> None:
    manifest = make(slot, b"one")
    (slot.folder / "_larder" / "index.jsonl").write_bytes(b"")
    with pytest.raises(InputError, match="not what its manifest says"):
        list(read_index(slot.folder, manifest))
