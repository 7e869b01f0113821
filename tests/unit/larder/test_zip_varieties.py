"""Zips as they are found in the wild: behind a stub, from Windows and macOS, with names in many encodings."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from larder.errors import InputError
from larder.sources import SourceOptions, open_local
from larder.sources.members import Source
from tests.archives import (
    DEFLATE,
    DOS,
    LZMA,
    MACOS,
    PPMD,
    STORED,
    UNIX,
    WINDOWS,
    ZipEntry,
    contents,
    extra_field,
    packed,
    unicode_path,
    zip_of,
)

FILES = {"train/a.jpg": b"first", "train/b.jpg": b"second" * 999, "val/c.jpg": b""}
ENTRIES = [ZipEntry(name.encode(), content, DEFLATE) for name, content in FILES.items()]
Open = Callable[..., Source]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Opens bytes as a source called `given`."""

    def open_bytes(content: bytes, options: SourceOptions = SourceOptions()) -> Source:  # noqa: B008  (immutable)
        path = tmp_path / "given"
        path.write_bytes(content)
        return open_local(path, "given", options)

    return open_bytes


# What precedes a zip ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counted", [True, False], ids=["offsets count it", "offsets do not"])
@pytest.mark.parametrize(
    "stub",
    [b"PK00", b"PK\x07\x08", b"MZ" + b"stub" * 300, b"#!/bin/sh\nexit\n", b"\0" * 700, b"PK\x05\x06"],
    ids=["PK00", "PK78", "exe", "script", "zeros", "an end record's mark"],
)
def test_zip_behind_a_stub(opened: Open, stub: bytes, counted: bool) -> None:
    archive = zip_of(ENTRIES, before=stub, counted=counted)
    with zipfile.ZipFile(io.BytesIO(archive)) as theirs:
        assert {name: theirs.read(name) for name in theirs.namelist()} == FILES
    assert contents(opened(archive)) == FILES


def test_zip_behind_another_one_is_refused(opened: Open) -> None:
    """Only the files of the last one would be read."""
    both = zip_of(ENTRIES) + zip_of(ENTRIES[:1])
    with pytest.raises(InputError, match="two zip archives or more, one behind the other") as error:
        contents(opened(both))
    assert "split the file" in error.value.next_step


def test_zip64_behind_a_stub_with_offsets_that_ignore_it(opened: Open) -> None:
    archive = zip_of(ENTRIES)
    *_, count, size, start, _ = struct.unpack("<4sHHHHIIH", archive[-22:])
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(archive) - 22, 1)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    for stub in (b"", b"MZ" * 5000):
        assert contents(opened(stub + archive[:-22] + record + locator + end)) == FILES


def test_zip_whose_comment_holds_an_end_record(opened: Open) -> None:
    inner = zip_of([ZipEntry(b"wrong.jpg", b"x")])
    assert contents(opened(zip_of(ENTRIES, comment=inner[-22:] + b"and on"))) == FILES


def test_bytes_before_the_directory(opened: Open) -> None:
    assert contents(opened(zip_of(ENTRIES, junk=b"a signature of an Android package"))) == FILES


def test_part_of_a_split_zip_is_named(opened: Open) -> None:
    archive = bytearray(zip_of(ENTRIES))
    at = archive.rfind(b"PK\x05\x06")
    struct.pack_into("<H", archive, at + 4, 2)
    with pytest.raises(InputError, match="split archive") as caught:
        contents(opened(bytes(archive)))
    assert "zip -s 0" in caught.value.next_step


# Names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [DOS, WINDOWS, 11, 14, UNIX])
def test_backslashes_separate_folders(opened: Open, host: int) -> None:
    entries = [ZipEntry(b"train\\", host=host, mode=0), ZipEntry(b"train\\cat\\1.jpg", b"1", host=host)]
    assert contents(opened(zip_of(entries))) == {"train/cat/1.jpg": b"1"}


def test_backslash_in_a_name_from_unix_stays(opened: Open) -> None:
    assert contents(opened(zip_of([ZipEntry(b"train/a\\b.jpg", b"1")]))) == {"train/a\\b.jpg": b"1"}
    assert contents(opened(zip_of([ZipEntry(b"train/a\\b.jpg", b"1", host=DOS)]))) == {"train/a/b.jpg": b"1"}


@pytest.mark.parametrize("name", [rb"..\..\x", rb"C:\x.jpg", rb"\x.jpg", rb"\\host\share\x", rb"a\..\..\b"])
def test_unsafe_names_with_backslashes_are_refused(opened: Open, name: bytes) -> None:
    for host in (DOS, UNIX):
        with pytest.raises(InputError, match=r"leaves|absolute"):
            contents(opened(zip_of([ZipEntry(name, b"1", host=host)])))


@pytest.mark.parametrize("raw", [b"????.jpg", "é図.jpg".encode()[:3] + b".jpg", b"#U56f3.jpg"])
def test_unicode_path_field_wins(opened: Open, raw: bytes) -> None:
    timestamp = extra_field(0x5455, b"\1time")
    entry = ZipEntry(raw, b"1", extra=timestamp + unicode_path(raw, "dir/図é.jpg"))
    assert contents(opened(zip_of([entry]))) == {"dir/図é.jpg": b"1"}


def test_unicode_path_field_of_another_name_is_ignored(opened: Open) -> None:
    """Its CRC shows that a program has renamed the file and not the field."""
    assert list(contents(opened(zip_of([ZipEntry(b"new.jpg", extra=unicode_path(b"old.jpg", "old.jpg"))])))) == [
        "new.jpg"
    ]


def test_unicode_path_field_is_checked_like_any_name(opened: Open) -> None:
    entry = ZipEntry(b"a.jpg", extra=unicode_path(b"a.jpg", "../../etc/cron.d/x"))
    with pytest.raises(InputError, match="leaves"):
        contents(opened(zip_of([entry])))


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("cp932", "表示/能.jpg"),
        ("gbk", "联通/图.jpg"),
        ("cp866", "кот.jpg"),
        ("latin-1", "é.jpg"),
        ("euc-kr", "고.jpg"),
    ],
)
def test_names_in_a_code_page(opened: Open, encoding: str, name: str) -> None:
    """cp932 has bytes that look like backslashes, and the bytes of 联通 in gbk are valid UTF-8."""
    entries = [ZipEntry(name.encode(encoding), b"1", host=DOS), ZipEntry("é.png".encode(), b"2", flags=0x800)]
    names = contents(opened(zip_of(entries), SourceOptions(zip_encoding=encoding)))
    assert names == {name: b"1", "é.png": b"2"}


def test_name_that_is_not_in_the_code_page_is_refused(opened: Open) -> None:
    with pytest.raises(InputError, match="not valid"):
        contents(opened(zip_of([ZipEntry(b"\x81.jpg")]), SourceOptions(zip_encoding="cp932")))


@pytest.mark.parametrize(
    "folder",
    [ZipEntry(b"d", mode=0o40755), ZipEntry(b"d", host=DOS, attributes=0x10), ZipEntry(b"d", host=MACOS, mode=0o40755)],
    ids=["Unix", "DOS", "macOS"],
)
def test_folder_without_a_slash(opened: Open, folder: ZipEntry) -> None:
    assert contents(opened(zip_of([folder, *ENTRIES]))) == FILES


# More than 4 GiB without Zip64 --------------------------------------------------------------------------------------


def mac_zip(path: Path, entries: list[tuple[str, bytes, int]], method: int = DEFLATE, own: bool = False) -> None:
    """A sparse zip with offsets and sizes modulo 2**32. Each entry: name, content, zeros that follow the content.

    With `own`, those zeros are part of a stored entry; else they are what a data descriptor would be.
    """
    directory = b""
    with path.open("wb") as file:
        for name, content, zeros in entries:
            raw, data = name.encode(), packed(content, method)
            size, length = len(content), len(data)
            crc = zlib.crc32(content)
            if own:
                length, size = (length + zeros) % 2**32, (size + zeros) % 2**32
            at = file.tell() % 2**32
            file.write(
                struct.pack("<4s5H3I2H", b"PK\3\4", 20, 8, method, 0, 33, 0, 0, 0, len(raw), 4) + raw + b"\0" * 4
            )
            file.write(data)
            file.seek(zeros, 1)
            directory += struct.pack(
                "<4s6H3I5H2I", b"PK\1\2", MACOS << 8 | 20, 20, 8, method, 0, 33, crc, length, size, len(raw), 0, 0,
                0, 0, 0o100644 << 16, at,
            ) + raw  # fmt: skip
        start = file.tell()
        file.write(directory)
        count = len(entries)
        file.write(struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(directory), start % 2**32, 0))


@pytest.mark.parametrize("method", [STORED, DEFLATE])
@pytest.mark.parametrize("gaps", [[2**32], [2**32 + 1000, 3 * 2**32], [2**31, 2**31, 2**31]])
def test_zip_of_more_than_4_gib_from_macos(tmp_path: Path, gaps: list[int], method: int) -> None:
    files = {f"{split}/{number}.jpg": b"%d" % number * 700 for split in ("train", "val") for number in range(4)}
    zeros = dict(zip(list(files)[1::2], gaps, strict=False))
    entries = [(name, content, zeros.get(name, 16)) for name, content in files.items()]
    mac_zip(tmp_path / "mac.zip", entries, method)
    assert contents(open_local(tmp_path / "mac.zip", "given")) == files


def test_sizes_modulo_4_gib(tmp_path: Path) -> None:
    """A stored film of 4 GiB and 1 MiB among the images: it states 1 MiB, and what follows it is found all the same."""
    film = 2**32 + 2**20
    mac_zip(tmp_path / "mac.zip", [("a.jpg", b"a", 0), ("film.mov", b"", film), ("b.jpg", b"b", 0)], STORED, own=True)
    source = open_local(tmp_path / "mac.zip", "given")
    members = {member.path: member for member in source.scan()}
    assert members["film.mov"].bytes == film
    assert b"".join(source.read(members["b.jpg"])) == b"b"


def test_offsets_modulo_4_gib_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    mac_zip(tmp_path / "mac.zip", [("a.jpg", b"a", 2**32), ("b.jpg", b"b", 0)])
    with (tmp_path / "mac.zip").open("r+b") as file:
        file.seek(2**32)
        block = file.read(200)
        file.seek(2**32 + block.index(b"PK\3\4"))
        file.write(b"XXXX")
    with pytest.raises(InputError, match="more than 4 GiB and no Zip64") as caught:
        contents(open_local(tmp_path / "mac.zip", "given"))
    assert "ditto" in caught.value.next_step


# Methods and faults -------------------------------------------------------------------------------------------------


def test_every_entry_that_cannot_be_read_is_counted(opened: Open) -> None:
    entries = [ZipEntry(b"%d.jpg" % number, b"x", PPMD) for number in range(8)]
    with pytest.raises(InputError, match=r"PPMd .*and 3 more") as caught:
        contents(opened(zip_of([*entries, *ENTRIES])))
    assert "7-Zip" in caught.value.next_step


def test_aes_is_called_encrypted(opened: Open) -> None:
    with pytest.raises(InputError, match="is encrypted") as caught:
        contents(opened(zip_of([ZipEntry(b"a.jpg", b"x", method=99, flags=1)])))
    assert "password" in caught.value.next_step


def test_lzma_with_a_huge_dictionary(opened: Open) -> None:
    """A dictionary needn't exceed the file's length: the reader uses a smaller one, or refuses the file."""
    raw = bytearray(packed(b"content", LZMA))
    raw[5:9] = struct.pack("<I", 0xFFFFFFFF)
    assert contents(opened(zip_of([ZipEntry(b"a", b"content", LZMA, data=bytes(raw))]))) == {"a": b"content"}
    with pytest.raises(InputError, match="dictionary"):
        contents(opened(zip_of([ZipEntry(b"a", b"content", LZMA, data=bytes(raw), size=1 << 30)])))


@pytest.mark.parametrize("method", [9, 12, 14, 20, 93, 95])
@pytest.mark.parametrize("data", [b"", b"\xff" * 40, None], ids=["empty", "noise", "cut off"])
def test_damaged_members_of_every_method(opened: Open, method: int, data: bytes | None) -> None:
    content = b"a text that is long enough to be cut off " * 20
    if data is None:
        data = packed(content, method)
        data = data[: len(data) // 2]
    with pytest.raises(InputError, match="damaged") as caught:
        contents(opened(zip_of([ZipEntry(b"a.jpg", content, method, data=data)])))
    if method == 9 and data.startswith(b"\xff"):
        assert "Deflate64" in caught.value.what
        assert "unpack it with 7-Zip" in caught.value.next_step
