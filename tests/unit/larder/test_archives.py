"""The readers of zip and tar: every variety gives the same files, every fault is an error, and nothing crashes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import random
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from larder.errors import InputError, LarderError
from larder.sources import open_local
from larder.sources.members import Source
from tests.archives import BZIP2, DEFLATE64, LZMA, OLD_ZSTD, PPMD, XZ, ZSTD, contents, files_in_zip, v7_tar

NOISE = random.Random(1).randbytes(3_000_000)

FILES = {
    "training/0_0.jpg": b"small",
    "training/0_1.jpg": b"",
    "training/1_0.jpg": NOISE[:200_000],
    "training/big.jpg": NOISE + bytes(2_000_000),  # longer than a chunk, packed and unpacked
    "evaluation/with space.jpg": b"1",
    "evaluation/图片 é.jpg": b"2",
    "evaluation/-rf": b"3",
    "evaluation/new\nline.jpg": b"4",
}

Archive = Callable[[dict[str, bytes]], bytes]

METHODS = {"Deflate64": DEFLATE64, "bzip2": BZIP2, "LZMA": LZMA, "zstd": ZSTD, "old zstd": OLD_ZSTD, "xz": XZ}


def plain_zip(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def stored_zip(files: dict[str, bytes]) -> bytes:
    return plain_zip(files, zipfile.ZIP_STORED)


def zip64(files: dict[str, bytes]) -> bytes:
    """Build a zip with every possible field of the Zip64 extra field, and the Zip64 end record."""
    body, directory = b"", b""
    for name, content in files.items():
        raw, crc, size = name.encode(), zlib.crc32(content), len(content)
        sizes = struct.pack("<HHQQ", 1, 16, size, size)
        extra = struct.pack("<HH4s", 0x5455, 4, b"time") + struct.pack("<HHQQQ", 1, 24, size, size, len(body))
        full = 0xFFFFFFFF
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 3 << 8 | 45, 45, 0x800, 0, 0, 0, crc, full, full, len(raw), len(extra),
            0, 0, 0, 0o100644 << 16, full,
        ) + raw + extra  # fmt: skip
        body += struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, 0x800, 0, 0, 0, crc, full, full, len(raw), len(sizes))
        body += raw + sizes + content
    count, start, size = len(files), len(body), len(directory)
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, start + size, 1)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return body + directory + end64 + locator + end


def streamed_zip(files: dict[str, bytes]) -> bytes:
    """Build a zip as written to a pipe: lengths follow the data, and local headers have none."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return pipe.getvalue()


def unflagged(files: dict[str, bytes]) -> bytes:
    """Build a zip of UTF-8 names without the flag for UTF-8."""
    return zip64(files).replace(struct.pack("<HH", 45, 0x800), struct.pack("<HH", 45, 0))


def tar_of(format: int) -> Archive:
    def build(files: dict[str, bytes]) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return buffer.getvalue()

    return build


pax, gnu, ustar = tar_of(tarfile.PAX_FORMAT), tar_of(tarfile.GNU_FORMAT), tar_of(tarfile.USTAR_FORMAT)


def tar_gz(files: dict[str, bytes]) -> bytes:
    return gzip.compress(pax(files), 1)


def tar_gz_in_parts(files: dict[str, bytes]) -> bytes:
    """Compress like parallel programs: several gzip members in a row."""
    whole = pax(files)
    return gzip.compress(whole[:1_000_001], 1) + gzip.compress(whole[1_000_001:], 1)


def tar_bz2(files: dict[str, bytes]) -> bytes:
    return bz2.compress(pax(files), 1)


def tar_bz2_in_parts(files: dict[str, bytes]) -> bytes:
    """Compress like pbzip2."""
    whole = pax(files)
    return bz2.compress(whole[:1_000_001], 1) + bz2.compress(whole[1_000_001:], 1)


def tar_xz(files: dict[str, bytes]) -> bytes:
    return lzma.compress(pax(files), preset=0)


def tar_xz_in_parts(files: dict[str, bytes]) -> bytes:
    """Compress to streams with padding between them, which xz's format allows."""
    whole = pax(files)
    return lzma.compress(whole[:1_000_001], preset=0) + bytes(8) + lzma.compress(whole[1_000_001:], preset=0) + bytes(4)


def tar_lzma(files: dict[str, bytes]) -> bytes:
    return lzma.compress(pax(files), lzma.FORMAT_ALONE, preset=0)


def tar_zst(files: dict[str, bytes]) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(pax(files))


def tar_zst_in_parts(files: dict[str, bytes]) -> bytes:
    whole = pax(files)
    return zstandard.compress(whole[:1_000_001]) + zstandard.compress(whole[1_000_001:])


KINDS: dict[str, Archive] = {
    "deflated zip": plain_zip,
    "stored zip": stored_zip,
    "zip64": zip64,
    "streamed zip": streamed_zip,
    "zip with unflagged names": unflagged,
    "pax tar": pax,
    "gnu tar": gnu,
    "ustar tar": ustar,
    "tar.gz": tar_gz,
    "tar.gz in parts": tar_gz_in_parts,
    "tar.zst": tar_zst,
    "tar.zst in parts": tar_zst_in_parts,
    "tar.bz2": tar_bz2,
    "tar.bz2 in parts": tar_bz2_in_parts,
    "tar.xz": tar_xz,
    "tar.xz in parts": tar_xz_in_parts,
    "tar.lzma": tar_lzma,
    "v7 tar": v7_tar,
    "v7 tar.gz": lambda files: gzip.compress(v7_tar(files), 1),
    **{f"zip with {name}": partial(files_in_zip, method=method) for name, method in METHODS.items()},
}

COMPRESSED = {name: KINDS[name] for name in ("tar.gz", "tar.zst", "tar.bz2", "tar.xz")}


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[bytes], Source]:
    """Opens bytes as a source called `given`."""

    def open_bytes(content: bytes) -> Source:
        path = tmp_path / "given"
        path.write_bytes(content)
        return open_local(path, "given")

    return open_bytes


@pytest.mark.one_in(2)
@pytest.mark.parametrize("build", KINDS.values(), ids=KINDS.keys())
def test_every_kind_reads_back(opened: Callable[[bytes], Source], build: Archive) -> None:
    source = opened(build(FILES))
    assert contents(source) == FILES
    assert contents(pickle.loads(pickle.dumps(opened(build(FILES))))) == FILES


# no archiver writes an empty archive as Zip64
@pytest.mark.parametrize("kind", [kind for kind, build in KINDS.items() if build is not zip64])
def test_no_files(opened: Callable[[bytes], Source], kind: str) -> None:
    build = KINDS[kind]
    try:
        assert contents(opened(build({}))) == {}
    except InputError as error:
        assert "not an archive" in error.what  # an empty tar is zeros


def test_a_reader_holds_no_list_of_members(opened: Callable[[bytes], Source]) -> None:
    source = opened(plain_zip({f"{number}": b"" for number in range(500)}))
    scan = source.scan()
    assert isinstance(scan, Iterator)
    assert next(scan).path == "0"


@pytest.mark.parametrize("raw", ["café.jpg".encode("cp437"), "café.jpg".encode()], ids=["cp437", "UTF-8"])
def test_names_without_the_utf8_flag(opened: Callable[[bytes], Source], raw: bytes) -> None:
    stand_in = "x" * len(raw)
    archive = plain_zip({stand_in: b"1"}).replace(stand_in.encode(), raw)
    assert contents(opened(archive)) == {"café.jpg": b"1"}


def test_flagged_name_that_is_not_utf8_is_refused(opened: Callable[[bytes], Source]) -> None:
    archive = plain_zip({"ééé.jpg": b"1"}).replace("ééé".encode(), b"\xff\xfe" * 3)
    with pytest.raises(InputError, match="not valid UTF-8"):
        contents(opened(archive))


@pytest.mark.parametrize("build", [pax, gnu, tar_gz], ids=["pax", "gnu", "tar.gz"])
def test_tar_name_that_is_not_utf8_is_refused(opened: Callable[[bytes], Source], build: Archive) -> None:
    archive = build({"ab\udcff.jpg": b"1"} if build is gnu else {"abc.jpg": b"1"})
    if build is not gnu:
        archive = pax({"abc.jpg": b"1"}).replace(b"abc.jpg", b"ab\xff.jpg")
        archive = with_checksum(archive)
        archive = gzip.compress(archive) if build is tar_gz else archive
    with pytest.raises(InputError, match="not valid UTF-8"):
        contents(opened(archive))


def with_checksum(archive: bytes) -> bytes:
    """Correct the checksum of a tar's first header."""
    header = archive[:148] + b" " * 8 + archive[156:512]
    return archive[:148] + b"%06o\0 " % sum(header) + archive[156:]


def encrypted(archive: bytes) -> bytes:
    flags = struct.pack("<H", 1)
    at = archive.index(b"PK\x01\x02")
    return archive[:6] + flags + archive[8 : at + 8] + flags + archive[at + 10 :]


def tar_with(info: tarfile.TarInfo, content: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar_entry(name: str, kind: bytes, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return tar_with(info)


def zip_entry(name: str, mode: int, content: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        info.create_system = 3
        archive.writestr(info, content)
    return buffer.getvalue()


def changed(archive: bytes, old: bytes, new: bytes) -> bytes:
    assert archive.count(old) >= 1
    return archive.replace(old, new)


def lying_size(archive: bytes, size: int) -> bytes:
    at = archive.index(b"PK\x01\x02") + 24
    return archive[:at] + struct.pack("<I", size) + archive[at + 4 :]


TEXT = b"the bytes of a file " * 20

DEFLATED = plain_zip({"a.jpg": TEXT})

STORED = stored_zip({"a.jpg": TEXT})

FAULTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty file": (lambda: b"", "empty file"),
    "web page": (lambda: b"<!DOCTYPE html><html>Log in</html>", "not an archive"),
    "encrypted zip": (lambda: encrypted(DEFLATED), "encrypted"),
    "PPMd in zip": (lambda: files_in_zip({"a.jpg": TEXT}, PPMD), r"PPMd \(method 98\)"),
    "wrong CRC": (lambda: changed(STORED, TEXT, TEXT[::-1]), "CRC-32"),
    "damaged deflate stream": (lambda: DEFLATED[:40] + b"\xff" * 8 + DEFLATED[48:], "inflate|CRC-32"),
    "zip that says less than it holds": (lambda: lying_size(DEFLATED, 5), "size and CRC-32"),
    "zip that says more than it holds": (lambda: lying_size(DEFLATED, 5000), "size and CRC-32"),
    "truncated zip": (lambda: DEFLATED[:-30], "cut off"),
    "zip without its beginning": (lambda: b"PK\x03\x04" + DEFLATED[40:], "missing|not where"),
    "zip with an absolute path": (lambda: zip_entry("/etc/cron.d/x", 0o100644), "absolute"),
    "zip with ..": (lambda: zip_entry("a/../../x", 0o100644), r"leaves the folder by '\.\.'"),
    "zip with a prefix trick": (lambda: zip_entry("../new2/x", 0o100644), "leaves"),
    "zip with a NUL": (lambda: changed(zip_entry("abc", 0o100644), b"abc", b"a\0c"), "NUL"),
    "zip with a link that leaves": (lambda: zip_entry("a/b", 0o120777, b"../../etc/passwd"), "leaves the folder"),
    "zip with an absolute link": (lambda: zip_entry("a", 0o120777, b"/etc/passwd"), "absolute path"),
    "zip with a long link": (lambda: zip_entry("a", 0o120777, b"x" * 5000), "too long"),
    "zip with a device": (lambda: zip_entry("a", 0o020666), "device"),
    "tar with an absolute path": (lambda: pax({"/etc/cron.d/x": b""}), "absolute"),
    "tar with ..": (lambda: pax({"../x": b""}), "leaves"),
    "tar with a link that leaves": (lambda: tar_entry("a", tarfile.SYMTYPE, "../x"), "leaves the folder"),
    "tar with an absolute link": (lambda: tar_entry("a", tarfile.SYMTYPE, "/etc/passwd"), "absolute"),
    "tar with a hard link that leaves": (lambda: tar_entry("a", tarfile.LNKTYPE, "../x"), "leaves"),
    "tar with an absolute hard link": (lambda: tar_entry("a", tarfile.LNKTYPE, "/etc/passwd"), "absolute"),
    "tar with a device": (lambda: tar_entry("a", tarfile.CHRTYPE), "device or pipe"),
    "tar with a pipe": (lambda: tar_entry("a", tarfile.FIFOTYPE), "device or pipe"),
    "tar without its end": (lambda: pax({"a": b"1"})[:1024], "end-of-archive"),
    "tar cut off in a file": (lambda: pax({"a": NOISE})[:5000], "beyond the file's end"),
    "tar cut off in a header": (lambda: pax({"a": b"1", "b": b"2"})[:1300], "cut off|end-of-archive|truncated"),
    "tar with a damaged first header": (lambda: b"X" + pax({"a": b"1"})[1:], "damaged"),
    "gz of something else": (lambda: gzip.compress(b"a text " * 300), "a text file compressed with gzip"),
    "zst of something else": (lambda: zstandard.compress(b"a text " * 300), "a text file compressed with zstd"),
    "bz2 of something else": (lambda: bz2.compress(b"a text"), "a text file compressed with bzip2"),
    "xz of something else": (lambda: lzma.compress(b"\1\2"), "a single file compressed with xz"),
    "gz of a zip": (lambda: gzip.compress(DEFLATED), "a zip archive compressed with gzip"),
    "gz of nothing": (lambda: gzip.compress(b""), "cut off"),
}


@pytest.mark.parametrize(("build", "why"), FAULTS.values(), ids=FAULTS.keys())
def test_fault_is_named(opened: Callable[[bytes], Source], build: Callable[[], bytes], why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        contents(opened(build()))
    assert "given" in caught.value.what
    assert caught.value.next_step


def test_sparse_file_is_refused(opened: Callable[[bytes], Source], tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(10_000_000)
        file.seek(5_000_000)
        file.write(b"1")
    for kind in ("gnu", "pax"):
        command = ["tar", "-S", f"--format={kind}", "-cf", "-", "-C", str(tmp_path), "holes"]
        archive = subprocess.run(command, check=True, capture_output=True).stdout
        with pytest.raises(InputError, match="sparse"):
            contents(opened(archive))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("build", COMPRESSED.values(), ids=COMPRESSED.keys())
@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.95, 0.9999])
def test_truncated_stream(opened: Callable[[bytes], Source], build: Archive, share: float) -> None:
    whole = build(FILES)
    with pytest.raises(InputError, match="damaged"):
        contents(opened(whole[: int(len(whole) * share)]))


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_checksum_of_a_stream_is_checked(opened: Callable[[bytes], Source], codec: str) -> None:
    """In stored blocks, a flipped bit inflates without an error, so only the checksum at the end shows it."""
    plain = pax({"a.jpg": NOISE[:100_000]})
    if codec == "gzip":
        archive = bytearray(gzip.compress(plain, 0))
    else:
        archive = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(plain))
    archive[archive.index(NOISE[50_000:50_020])] ^= 1
    with pytest.raises(InputError, match="damaged"):
        contents(opened(bytes(archive)))


SEEDS = {
    name: KINDS[name]({"a/b.jpg": TEXT, "a/c.jpg": b"", "d": b"x" * 700})
    for name in KINDS
    if "parts" not in name and "with" not in name
}


@pytest.mark.parametrize("kind", SEEDS)
@settings(max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_damage_ends_in_an_error_for_people(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    """Bytes are replaced, cut out or inserted anywhere: the reader returns files or raises LarderError."""
    archive = bytearray(SEEDS[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        # the directory of a zip is at its end, a tar's header at its start
        at = data.draw(st.integers(0, len(archive)) | st.integers(max(0, len(archive) - 200), len(archive)))
        replaced = data.draw(st.integers(0, 8))
        archive[at : at + replaced] = data.draw(st.binary(max_size=8) | st.just(b"\xff" * 8))
    path = tmp_path / "given"
    path.write_bytes(archive)
    try:
        contents(open_local(path, "given"))
    except LarderError as error:
        assert error.exit_code == 3


def test_more_files_than_the_end_record_counts_are_damage(opened: Callable[[bytes], Source]) -> None:
    archive = bytearray(plain_zip(FILES))
    end = archive.rfind(b"PK\x05\x06")
    for at in (end + 8, end + 10):  # entries on this disk, entries in all
        archive[at : at + 2] = (len(FILES) - 1).to_bytes(2, "little")
    with pytest.raises(InputError, match="end record states"):
        contents(opened(bytes(archive)))


def test_more_files_than_16_bits_count_without_zip64(opened: Callable[[bytes], Source]) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as writer:
        for number in range(70_000):
            writer.writestr(f"{number}", b"")
    wide = stream.getvalue()
    end = wide.rfind(b"PK\x05\x06")
    start = wide.rfind(b"PK\x06\x06")  # leave Zip64's record and locator out
    narrow = bytearray(wide[:start] + wide[end:])
    end = narrow.rfind(b"PK\x05\x06")
    directory = narrow.find(b"PK\x01\x02")
    struct.pack_into("<HHII", narrow, end + 8, 70_000 % 65_536, 70_000 % 65_536, start - directory, directory)
    assert sum(1 for _ in opened(bytes(narrow)).scan()) == 70_000


def test_an_appended_archive_is_not_dropped_silently(opened: Callable[[bytes], Source]) -> None:
    one, two = pax(FILES), pax({"other.jpg": b"x"})
    for archive in (one + two, gzip.compress(one + two)):
        with pytest.raises(InputError, match="several archives"):
            contents(opened(archive))


def test_zstd_of_several_frames_is_read_whole(opened: Callable[[bytes], Source]) -> None:
    archive = pax(FILES)
    half = len(archive) // 2
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"pzst"
    frames = skippable + zstandard.compress(archive[:half]) + zstandard.compress(archive[half:])
    assert contents(opened(frames)) == FILES
