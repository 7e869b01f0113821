"""The ledger: entries survive a kill, and paths are unique."""

import errno
from pathlib import Path

import pytest

from larder import machine
from larder.contract import IndexEntry
from larder.ledger import Ledger

ENTRIES = [IndexEntry(path, 1, "0" * 64) for path in ("b", "a/图", "a b", "Z")]


def test_entries_come_back_sorted_by_bytes_and_survive(tmp_path: Path) -> None:
    with Ledger(tmp_path / "x" / "ledger", "key") as ledger:
        assert not ledger.resumed
        assert ledger.add(ENTRIES) is None
    with Ledger(tmp_path / "x" / "ledger", "key") as ledger:
        assert ledger.resumed
        assert list(ledger.entries()) == sorted(ENTRIES, key=lambda entry: entry.path.encode())
        assert (len(ledger), "b" in ledger, "c" in ledger) == (4, True, False)
        assert ledger.get("b") == ENTRIES[0]
        assert ledger.get("c") is None


def test_another_key_another_boot_or_damage_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger"
    for harm in ("key", "boot", "damage"):
        with Ledger(path, "key") as ledger:
            ledger.clear()
            ledger.add(ENTRIES)
        if harm == "boot":
            (tmp_path / "boot").write_text("another")
            monkeypatch.setattr(machine, "_BOOT_ID", tmp_path / "boot")
        if harm == "damage":
            path.write_bytes(b"not a database" * 100)
        with Ledger(path, "other" if harm == "key" else "key") as ledger:
            assert (ledger.resumed, len(ledger)) == (False, 0)


def test_a_repeated_path_adds_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger", "key") as ledger:
        assert ledger.add(ENTRIES[:1]) is None
        assert ledger.add(ENTRIES) == ENTRIES[0]
        assert len(ledger) == 1


def test_claims_and_rejects(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger", "key") as ledger:
        assert [ledger.claim("a", "one"), ledger.claim("a", "two")] == ["one", "one"]
        ledger.clear_claims()
        assert ledger.claim("a", "two") == "two"
        ledger.reject([("b", "why"), ("a", "why")])
        assert (ledger.reject_count(), ledger.is_rejected("a"), ledger.is_rejected("c")) == (2, True, False)
        assert [path for path, _ in ledger.rejects()] == ["a", "b"]


def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger", "key") as ledger:
        ledger._db.execute("PRAGMA max_page_count = 10")
        with pytest.raises(OSError, match="No space left") as caught:
            ledger.add(IndexEntry(f"{number}", 1, "0" * 64) for number in range(10_000))
        assert caught.value.errno == errno.ENOSPC
        assert len(ledger) == 0


def test_a_ledger_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ledger").mkdir()
    with pytest.raises(OSError, match=r"."):
        Ledger(tmp_path / "ledger", "key")


def test_contents_in_several_folders(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite", "k") as ledger:
        assert ledger.in_several_folders() == (0, [])
        place = {
            "training/a": "1",
            "training/b": "1",
            "test/c": "2",
            'training/"sha256":"x': "3",
            "val/e": "3",
            "test/f": "3",
            "test/g": "4",
            "val/h": "4",
        }
        ledger.add(IndexEntry(path, 1, content * 64, 0) for path, content in place.items())
        assert ledger.in_several_folders() == (2, ["test/f", 'training/"sha256":"x', "val/e"])
