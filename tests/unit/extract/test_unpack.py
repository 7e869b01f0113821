"""Unpacking: links become files, no path is repeated, limits hold, and a second try sees the same faults."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from larder.engines.local import LocalEngine
from larder.errors import InputError
from larder.ledger import Ledger
from larder.progress import Reporter
from larder.sources import SourceLimits, open_local
from services.extract.unpack import unpack

Entry = tuple[str, bytes, str]  # name, type, content or target
FILE, SYMLINK, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """Unpacks a tar of entries, like a run that resumes the last one. Returns the ledger's entries."""

    def run(entries: list[Entry], max_files: int = 100, max_bytes: int = 1000) -> dict[str, bytes]:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, kind, text in entries:
                info = tarfile.TarInfo(name)
                info.type = kind
                if kind == FILE:
                    info.size = len(text)
                else:
                    info.linkname = text
                archive.addfile(info, io.BytesIO(text.encode()))
        (tmp_path / "a.tar").write_bytes(buffer.getvalue())
        folder = tmp_path / "new"
        folder.mkdir(exist_ok=True)
        with Ledger(tmp_path / "ledger", "key") as ledger:
            source = open_local(tmp_path / "a.tar", "given")
            unpack(source, folder, ledger, LocalEngine(1), Reporter("test"), SourceLimits(max_files, max_bytes))
            return {entry.path: (folder / entry.path).read_bytes() for entry in ledger.entries()}

    return run


def test_links_and_chains_become_files(unpacked: Callable[..., dict[str, bytes]], tmp_path: Path) -> None:
    entries = [
        ("x/c", SYMLINK, "b"),
        ("x/b", SYMLINK, "../y/a"),
        ("y/a", FILE, "text"),
        ("y/h", HARD, "y/a"),
        ("deep/er/d", SYMLINK, "../../x/c"),
    ]
    for _ in range(2):
        assert unpacked(entries) == dict.fromkeys(["deep/er/d", "x/b", "x/c", "y/a", "y/h"], b"text")
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([("a", FILE, "1"), ("a", FILE, "2")], "twice"),
        ([("a", FILE, "1"), ("./a", FILE, "1")], "twice"),
        ([("b", FILE, "1"), ("a", SYMLINK, "b"), ("a", FILE, "2")], "twice"),
        ([("b", FILE, "1"), ("a", FILE, "2"), ("a", SYMLINK, "b")], "twice"),
        ([("b", FILE, "1"), ("a", SYMLINK, "b"), ("a", SYMLINK, "b")], "twice"),
        ([("a", FILE, "1"), ("a/b", FILE, "2")], "a file and a folder"),
        ([("a/b", FILE, "1"), ("a", FILE, "2")], "a file and a folder"),
        ([("a", FILE, "1"), ("a/b", SYMLINK, "../a")], "a file and a folder"),
        ([("a/b", FILE, "1"), ("a", SYMLINK, "a/b")], "a file and a folder"),
        ([("a", SYMLINK, "nothing")], "not a file in it"),
        ([("a", SYMLINK, "b"), ("b", SYMLINK, "a")], "not a file in it"),
        ([("d/f", FILE, "1"), ("a", SYMLINK, "d")], "not a file in it"),
    ],
    ids=[
        "same",
        "same path",
        "link then file",
        "file then link",
        "two links",
        "file then folder",
        "folder then file",
        "link below a file",
        "link at a folder",
        "dangling",
        "circle",
        "link to a folder",
    ],
)
def test_clashes_are_refused_every_time(
    unpacked: Callable[..., dict[str, bytes]], entries: list[Entry], why: str
) -> None:
    for _ in range(2):
        with pytest.raises(InputError, match=why):
            unpacked(entries)


@pytest.mark.parametrize("kind", [SYMLINK, HARD], ids=["symbolic", "hard"])
@pytest.mark.parametrize("order", [1, -1], ids=["target first", "target last"])
def test_each_link_of_a_chain_is_looked_at_once(
    unpacked: Callable[..., dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, kind: str, order: int
) -> None:
    """Chains of links to links took quadratic time: what is counted here are the questions to the ledger."""
    asked = 0
    contains = Ledger.__contains__

    def counted(ledger: Ledger, path: str) -> bool:
        nonlocal asked
        asked += 1
        return contains(ledger, path)

    monkeypatch.setattr(Ledger, "__contains__", counted)
    length = 1500
    links = [(f"{number:05}", kind, f"{number - 1:05}") for number in range(1, length)]
    entries = [("00000", FILE, "text"), *links][::order]
    for _ in range(2):
        assert unpacked(entries, max_files=length, max_bytes=4 * length) == {
            f"{number:05}": b"text" for number in range(length)
        }
    assert asked < 2 * 8 * length


def test_a_long_circle_and_a_broken_chain_are_reported_once(unpacked: Callable[..., dict[str, bytes]]) -> None:
    circle = [(f"c{number}", SYMLINK, f"c{(number + 1) % 1000}") for number in range(1000)]
    chain = [(f"d{number}", SYMLINK, f"d{number + 1}") for number in range(1000)]
    with pytest.raises(InputError, match="and 1,995 more") as caught:
        unpacked([("a", FILE, "1"), *circle, *chain], max_files=3000)
    assert len(caught.value.what) < 1000


def test_links_count_with_the_bytes_of_their_files(unpacked: Callable[..., dict[str, bytes]]) -> None:
    entries = [("a", FILE, "x" * 100), ("b", SYMLINK, "a"), ("c", HARD, "b")]
    assert len(unpacked(entries, max_bytes=300)) == 3
    with pytest.raises(InputError, match="more than 299 B"):
        unpacked([*entries, ("d", FILE, "")], max_bytes=299)


def test_more_links_than_a_file_may_have_names(
    unpacked: Callable[..., dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ext4 takes 65,000 names of a file: then it is copied, and a run that goes on takes the copy for a link."""
    link, made = os.link, 0

    def limited(*names: Path) -> None:
        nonlocal made
        made += 1
        if made > 3:
            raise OSError(errno.EMLINK, "Too many links")
        link(*names)

    monkeypatch.setattr(os, "link", limited)
    entries = [("a", FILE, "text"), *((f"l{number}", HARD, "a") for number in range(9))]
    for _ in range(2):
        assert set(unpacked(entries).values()) == {b"text"}
    with pytest.raises(InputError, match="twice"):
        unpacked([*entries, ("l7", FILE, "other")])


def test_limits(unpacked: Callable[..., dict[str, bytes]]) -> None:
    entries = [("a", FILE, "x" * 10), ("b", FILE, "x" * 10)]
    with pytest.raises(InputError, match="more than 1 files"):
        unpacked(entries, max_files=1)
    with pytest.raises(InputError, match="more than 19 B"):
        unpacked(entries, max_bytes=19)
    assert len(unpacked(entries, max_files=2, max_bytes=20)) == 2
