"""Small archives that expand to gigabytes or hours: all end soon, with a clear error, below 200 MB of memory."""

from __future__ import annotations

import gzip
import json
import lzma
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.archives import (
    BZIP2,
    DEFLATE,
    DEFLATE64,
    FILE,
    LZMA,
    XZ,
    ZSTD,
    ZipEntry,
    files_in_tar,
    padded,
    tar_header,
    tar_of,
    zip_of,
)
from tests.shared import Started, shared

MEGABYTE = 1 << 20
MAX_BYTES = 200 * 10**6
_ZEROS_GZ = gzip.compress(bytes(MEGABYTE))
_END = bytes(1024)

_CHILD = """
import json, sys
from larder.progress import Reporter
from services.extract.__main__ import ABOUT, run
from services.extract.settings import ExtractSettings
from services.commands import main

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

for volume, *words in map(json.loads, sys.stdin):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # reset the peak: proc(5)
    code = main("extract", ExtractSettings, run, ABOUT, [f"--volume={volume}", "--workers=1", *words])
    print(json.dumps({"code": code, "peak": peak()}), flush=True)
"""


def zeros_gz(megabytes: int) -> bytes:
    return _ZEROS_GZ * megabytes


def tar_gz(*parts: bytes | int) -> bytes:
    """Compress the parts of a tar. A number stands for this many megabytes of zeros."""
    return b"".join(zeros_gz(part) if isinstance(part, int) else gzip.compress(part) for part in parts)


def pax_header(content: bytes, kind: bytes = b"x") -> bytes:
    return tar_header(b"PaxHeaders/x", kind, len(content)) + padded(content)


def pax_records(count: int, kind: bytes) -> bytes:
    """Return headers of nearly 1 MiB, each with a different key."""
    parts = []
    for number in range(count):
        rest = b" key%d=" % number + b"v" * 1_000_000 + b"\n"
        parts.append(pax_header(b"%d" % (len(rest) + 7) + rest, kind))
    return b"".join(parts)


def zstd_frame(window_log: int, tar: bytes, zeros: int) -> bytes:
    """A frame with a window of that size: `tar` as it is, then blocks of 128 KiB of zeros (RFC 8878, 3.1.1)."""
    blocks = [struct.pack("<I", len(tar) << 3)[:3] + tar]
    blocks += [struct.pack("<I", (128 << 10) << 3 | 1 << 1)[:3] + b"\0"] * (zeros // (128 << 10))
    return b"\x28\xb5\x2f\xfd\0" + bytes([(window_log - 10) << 3]) + b"".join(blocks) + b"\1\0\0"


def xz_with_dictionary(content: bytes, code: int) -> bytes:
    """xz whose header states a dictionary of another size, by its code (the .xz file format, 5.3.1)."""
    archive = bytearray(lzma.compress(content, preset=0))
    header_bytes = (archive[12] + 1) * 4
    header = archive[12 : 12 + header_bytes - 4]
    at = header.index(b"\x21\x01") + 2
    header[at] = code
    archive[12 : 12 + header_bytes] = header + struct.pack("<I", zlib.crc32(header))
    return bytes(archive)


def bomb(method: int, stated: int | None = 10) -> bytes:
    return zip_of([ZipEntry(b"a.jpg", bytes(250 * MEGABYTE), method, size=stated)])


def shared_nothing() -> bytes:
    """Many entries that all unpack the same 4 MB of deflate, which are empty blocks."""
    data = b"\0\0\0\xff\xff" * 800_000 + b"\3\0"
    first = ZipEntry(b"0.jpg", b"", DEFLATE, data=data)
    overlapping = [
        ZipEntry(b"%d.jpg" % n, b"", DEFLATE, data=b"", packed_size=len(data), offset=0) for n in range(1, 500)
    ]
    return zip_of([first, *overlapping])


_FILE_TAR = tar_of([("a.jpg", FILE, "1")])
_SMALL = "--max-unpacked=50MB"
HOSTILE: dict[str, tuple[Callable[[], bytes], list[str], str]] = {
    "pax header": (
        lambda: tar_gz(tar_header(b"p", b"x", 512 * MEGABYTE), 512, _FILE_TAR), [], "a pax header of 536,870,912",
    ),
    "global pax header": (lambda: tar_gz(tar_header(b"p", b"g", 512 * MEGABYTE), 512, _FILE_TAR), [], "536,870,912"),
    "GNU name": (
        lambda: tar_gz(tar_header(b"././@LongLink", b"L", 300 * MEGABYTE), 300, _FILE_TAR), [], "a name of 314,572",
    ),
    "GNU link": (
        lambda: tar_gz(tar_header(b"././@LongLink", b"K", 300 * MEGABYTE), 300, _FILE_TAR), [], "a name of 314,572",
    ),
    "name of 1 MiB": (
        lambda: tar_gz(tar_header(b"././@LongLink", b"L", MEGABYTE), padded(b"n" * MEGABYTE), _FILE_TAR),
        [], "255 bytes",
    ),
    "many global headers": (lambda: gzip.compress(pax_records(200, b"g") + _FILE_TAR, 1), [], ""),
    "many headers of one file": (lambda: gzip.compress(pax_records(200, b"x") + _FILE_TAR, 1), [], ""),
    "headers of headers": (
        lambda: gzip.compress((tar_header(b"p", b"L", 9) + padded(b"n" * 9)) * 20_000 + _FILE_TAR, 1), [], "",
    ),
    "endless sparse map": (
        lambda: tar_gz(pax_header(b"22 GNU.sparse.major=1\n" + b"22 GNU.sparse.minor=0\n"),
               tar_header(b"s", b"0", 400 * MEGABYTE), b"9" * 512, 400), [], "sparse",
    ),
    "old sparse file": (lambda: tar_gz(tar_header(b"s", b"S", 4 << 30), 100), [], "sparse"),
    "trailing zeros": (lambda: tar_gz(_FILE_TAR, 3000), [_SMALL], "LARDER_MAX_UNPACKED"),
    "litter": (
        lambda: tar_gz(tar_header(b".DS_Store", b"0", 3 << 30), 3 << 10, _FILE_TAR), [_SMALL], "LARDER_MAX_UNPACKED",
    ),
    "folders": (
        lambda: gzip.compress(tar_header(b"d/", b"5") * 200_000 + _FILE_TAR, 1), [_SMALL], "LARDER_MAX_UNPACKED",
    ),
    "more folders than files may be": (
        lambda: gzip.compress(tar_header(b"d/", b"5") * 2000 + _FILE_TAR, 1), ["--max-files=1000"], "LARDER_MAX_FILES",
    ),
    "size of 8 EB": (lambda: tar_gz(tar_header(b"a", b"0", b"\x80\0\0\0\x7f" + b"\xff" * 7), 10), [], "MAX_UNPACKED"),
    "negative size": (lambda: tar_gz(tar_header(b"a", b"0", b"\xff" * 12), 10), [], "impossible size"),
    "xz dictionary": (lambda: xz_with_dictionary(_FILE_TAR, 40), [], "damaged"),
    "lzma dictionary": (lambda: b"\x5d\0\0\0\x60" + lzma.compress(_FILE_TAR, lzma.FORMAT_ALONE)[5:], [], "damaged"),
    "zstd window": (lambda: zstd_frame(31, _FILE_TAR, 0), [], "damaged"),
    "zstd window that is read": (
        lambda: zstd_frame(27, tar_header(b"a.jpg", b"0", 300 * MEGABYTE), 301 * MEGABYTE), [], "",
    ),
    "xz of zeros": (
        lambda: lzma.compress(_FILE_TAR + bytes(400 * MEGABYTE), preset=0), [_SMALL], "LARDER_MAX_UNPACKED",
    ),
    **{f"bomb of {name}": (partial(bomb, method), [], "size and CRC-32")
       for name, method in (("deflate", DEFLATE), ("Deflate64", DEFLATE64), ("bzip2", BZIP2), ("LZMA", LZMA),
                            ("zstd", ZSTD), ("xz", XZ))},
    "bomb that states its size": (lambda: bomb(DEFLATE, None), [_SMALL], "LARDER_MAX_UNPACKED"),
    "shared bytes": (shared_nothing, ["--max-unpacked=200MB"], "LARDER_MAX_UNPACKED"),
    "long names and comments": (
        lambda: zip_of([ZipEntry(b"%060000d" % number, extra=b"\7\0\xfb\xff" + bytes(65531), comment=bytes(65535))
                for number in range(100)]), [], "and 95 more",
    ),
    "many links to one file": (
        lambda: gzip.compress(files_in_tar({"a.jpg": b"x" * 100_000})[:-10240]
                      + b"".join(tar_header(b"%d.jpg" % n, b"2", link=b"a.jpg") for n in range(2000)) + _END), [_SMALL],
        "LARDER_MAX_UNPACKED",
    ),
}  # fmt: skip
"""What makes each archive, the flags, and what extract says. Collecting the tests makes none: it takes seconds."""


class Ended(NamedTuple):
    """How extract ended."""

    code: int
    peak: int
    said: str


@pytest.fixture(scope="session")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ended]]:
    """Extract each archive in a process, once per test run."""
    with shared(tmp_path_factory, "hostile", _extract_all) as ends:
        yield {name: Ended(*end) for name, end in ends.items()}


def _extract_all(folder: Path) -> Started:
    jobs = []
    for number, (make, words, _) in enumerate(HOSTILE.values()):
        assert (folder / f"{number}").write_bytes(make()) < 30_000_000, "the archives are small"
        (folder / f"volume{number}").mkdir()
        jobs.append(
            json.dumps([str(folder / f"volume{number}"), f"--source={folder / str(number)}", "--log=json", *words])
        )
    run = subprocess.run(
        [sys.executable, "-c", _CHILD], input="\n".join(jobs), capture_output=True, text=True, timeout=400
    )
    assert run.returncode == 0, run.stderr[-3000:]
    ends = [json.loads(line) for line in run.stdout.splitlines()]
    events = [json.loads(line) for line in run.stderr.splitlines() if line.startswith("{")]
    last = [event["message"] for event in events if event["event"] in ("done", "error")]
    assert len(last) == len(ends) == len(HOSTILE)
    outcomes = {name: (end["code"], end["peak"], what) for name, end, what in zip(HOSTILE, ends, last, strict=True)}
    return Started(outcomes, ["true"])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive(extracted: dict[str, Ended], name: str) -> None:
    ended, why = extracted[name], HOSTILE[name][2]
    assert ended.peak < MAX_BYTES
    assert ended.code == (3 if why else 0), ended.said
    assert why in ended.said
    assert len(ended.said) < 3000
