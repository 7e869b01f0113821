"""Other files in place of an archive are recognized, with a next step that helps."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from larder.errors import InputError
from larder.sources import open_local
from larder.sources.formats import identify_format

GIVEN: dict[str, tuple[bytes, str, str]] = {
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(100), "a 7z archive", "7z x"),
    "rar": (b"Rar!\x1a\x07\x01\0", "a RAR archive", "unrar"),
    "rar4": (b"Rar!\x1a\x07\0", "a RAR archive", "unrar"),
    "cpio": (b"070701" + b"0" * 100, "cpio", "cpio -id"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(20), "LZ4", "lz4 -d"),
    "lzip": (b"LZIP\1", "lzip", "lzip -d"),
    "cabinet": (b"MSCF\0\0\0\0", "cabinet", "7-Zip"),
    "split zip": (b"PK\x07\x08PK\3\4" + bytes(40), "a part of a zip", "zip -s 0"),
    "html": (b"<!DOCTYPE html>\n<html><title>Google Drive - Virus scan warning</title>", "HTML page", "browser"),
    "html with a mark": (b"\xef\xbb\xbf\r\n  <HTML>", "HTML page", "browser"),
    "error of a store": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "store's error", "address"),
    "json": (b'{"error": "unauthorized"}', "JSON", "address"),
    "pdf": (b"%PDF-1.7\n", "PDF", "images"),
    "parquet": (b"PAR1\x15\x04", "Parquet", "folder per class"),
    "arrow": (b"ARROW1\0\0", "Arrow", "folder per class"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "HDF5", "folder per class"),
    "numpy": (b"\x93NUMPY\1\0", "NumPy", "folder per class"),
    "matlab": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "MATLAB", "folder per class"),
    "pickle": (b"\x80\x04\x95\x10\0\0\0", "pickle", "never opened"),
    "idx": (b"\0\0\x08\x03\0\0\xea\x60", "IDX", "folder per class"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer", "git lfs pull"),
    "git-annex": (b"/annex/objects/SHA256E-s3--00.zip\n", "git-annex pointer", "git annex get"),
    "dvc": (b"outs:\n- md5: 00\n  size: 3\n  path: data\n", "DVC pointer", "dvc pull"),
    "jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image", "folder"),
    "png": (b"\x89PNG\r\n\x1a\n", "a PNG image", "folder"),
    "webp": (b"RIFF\x10\0\0\0WEBPVP8 ", "a WebP image", "folder"),
    "video": (b"\0\0\0\x20ftypisom", "a video", "folder"),
    "program": (b"\x7fELF\2\1\1", "program", "address"),
    "preallocated": (bytes(4096), "zeros", "not completed"),
    "disk image": (bytes(32769) + b"CD001" + bytes(2048), "zeros", "7-Zip"),
    "lmdb": (bytes(16) + b"\xde\xc0\xef\xbe" + bytes(4096), "LMDB", "folder per class"),
    "tfrecord": (b"\x14" + bytes(7) + b"\1\2\3\4\x0a\x12" + bytes(30), "TFRecord", "folder per class"),
    "recordio": (b"\x0a\x23\xd7\xce" + bytes(30), "RecordIO", "folder per class"),
    "csv": (b"path,label\na.jpg,cat\n", "a text file", "folder of images"),
    "torrent": (b"d8:announce35:udp://tracker", "torrent", "download"),
    "unknown": (b"\xde\xad\xbe\xef" * 50, r"it begins with b'\\xde\\xad", "another program"),
}


@pytest.mark.parametrize(("head", "name", "step"), GIVEN.values(), ids=GIVEN.keys())
def test_format_is_named(tmp_path: Path, head: bytes, name: str, step: str) -> None:
    path = tmp_path / "given.zip"  # whatever it is called
    path.write_bytes(head)
    with pytest.raises(InputError, match=name) as caught:
        open_local(path, "given.zip")
    assert "not an archive" in caught.value.what
    assert step in caught.value.next_step
    assert "\n" not in caught.value.what + caught.value.next_step


def test_sqlite_is_named(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "given") as database:
        database.execute("CREATE TABLE t (x)")
    with pytest.raises(InputError, match="SQLite"):
        open_local(tmp_path / "given", "given")


def test_any_head_is_looked_at_in_bounded_time() -> None:
    for byte in (b" ", b"<", b"\n", b"outs:", b"{", b"a"):
        identify_format(byte * 1_000_000)
