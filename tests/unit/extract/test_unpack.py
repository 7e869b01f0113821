"""Unpacking: links become files, nothing is in it twice, limits hold, and a second try sees the same faults."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from larder.engines.local import LocalEngine
from larder.errors import InputError
from larder.ledger import Ledger
from larder.progress import Reporter
from larder.sources import open_local
from services.extract.unpack import unpack

Entry = tuple[str, bytes, str]  # name, type, content or target
FILE, SYMLINK, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """Unpacks a tar of entries, as a run would that continues from the last; gives what is in the ledger."""

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
            unpack(source, folder, ledger, LocalEngine(1), Reporter("test"), max_files, max_bytes)
            return {entry.path: (folder / entry.path).read_bytes() for entry in ledger.entries()}

    return run


def test_links_and_chains_become_files(unpacked: Callable[..., dict[str, bytes]], tmp_path: Path) -> None:
    entries = [
        ("x/c", SYMLINK, "b"), ("x/b", SYMLINK, "../y/a"), ("y/a", FILE, "text"), ("y/h", HARD, "y/a"),
        ("deep/er/d", SYMLINK, "../../x/c"),
    ]  # fmt: skip
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
        ([("a", SYMLINK, "nothing")], "no file in it"),
        ([("a", SYMLINK, "b"), ("b", SYMLINK, "a")], "no file in it"),
        ([("d/f", FILE, "1"), ("a", SYMLINK, "d")], "no file in it"),
    ],
    ids=["same", "same path", "link then file", "file then link", "two links", "file then folder", "folder then file",
         "link below a file", "link at a folder", "dangling", "circle", "link to a folder"],
)  # fmt: skip
def test_clashes_are_refused_every_time(
    unpacked: Callable[..., dict[str, bytes]], entries: list[Entry], why: str
) -> None:
    for _ in range(2):
        with pytest.raises(InputError, match=why):
            unpacked(entries)


def test_limits(unpacked: Callable[..., dict[str, bytes]]) -> None:
    entries = [("a", FILE, "x" * 10), ("b", FILE, "x" * 10)]
    with pytest.raises(InputError, match="more than 1 files"):
        unpacked(entries, max_files=1)
    with pytest.raises(InputError, match="more than 19 B"):
        unpacked(entries, max_bytes=19)
    assert len(unpacked(entries, max_files=2, max_bytes=20)) == 2
