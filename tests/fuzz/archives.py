"""Fuzz targets for archives: built field by field with harmful values, then damaged, then extracted."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import random
import struct
from collections.abc import Callable
from pathlib import Path

import zstandard

from larder.engines.local import LocalEngine
from larder.ledger import Ledger
from larder.progress import Reporter
from larder.sources import SourceLimits, SourceOptions, open_local
from services.extract.unpack import unpack
from tests import archives
from tests.archives import ZipEntry, padded, tar_header, zip_of

_FILES, _BYTES = 300, 20_000_000
_NAMES = [
    "a", "b", "a/b", "d/", "d/e.jpg", "../x", "/etc/x", "C:\\x", "a\\b", "..", ".", "", "a\0b", "new\nline", "\x1b[2J",
    "é", "図/a", "x" * 256, "x/" * 70, "y" * 60_000,
    "__MACOSX/a", ".DS_Store", "_larder/manifest.json", "a/../b",
    "a.zip", "b.tar", "c.tar.gz", "c.tgz", "-rf", "\u202egpj.exe", "a/", "//", "./a",
]  # fmt: skip
_NUMBERS = [0, 1, 7, 100, 511, 512, 513, 0xFFFF, 1 << 20, (1 << 31) - 1, 1 << 31, 0xFFFFFFFF]
_EVIL = [0.0, 0.0, 0.03, 0.1, 0.5]
"""How much of an archive is odd: one oddity is enough to have it refused, and what follows isn't looked at."""
_READ_METHODS = [0, 8, 9, 12, 14, 93, 95]
_METHODS = [0, 0, 8, 8, 9, 12, 14, 20, 93, 95, 98, 1, 99]


def fuzz_zip(random: random.Random, folder: Path) -> None:
    """A zip with a stub, wrong fields, odd names and extra fields, some as an inner zip."""
    _extract(random, folder, _damaged(random, _zip(random, random.choice(_EVIL))))


def fuzz_tar(random: random.Random, folder: Path) -> None:
    """A tar with every kind of header, plain or compressed."""
    _extract(random, folder, _damaged(random, _compressed(random, _tar(random, random.choice(_EVIL)))))


def fuzz_links(random: random.Random, folder: Path) -> None:
    """A tar or zip of links to links, some of them in circles."""
    tame = random.random() < 0.6  # nothing leads in circles, out, or to nothing
    folders = [""] if tame else ["", "d/", "d/e/"]
    names = [f"{random.choice(folders)}{number}" for number in range(random.randint(1, 60))]
    odd = [*names, "../" + random.choice(names), "nothing", "/etc/passwd", ".", "d"]
    entries = []
    for number, name in enumerate(names):
        is_file = number == 0 or random.random() < 0.3
        target = random.choice(names[: max(number, 1)]) if tame else random.choice(odd)
        entries.append((name, b"x" + _bytes(random, 20) if is_file else None, target))
    random.shuffle(entries)
    if random.random() < 0.5:
        archive = zip_of(
            ZipEntry(name.encode(), content or target.encode(), mode=0o100644 if content else 0o120777)
            for name, content, target in entries
        )
    else:
        parts = []
        for name, content, target in entries:
            if content is not None:
                parts += [tar_header(name.encode(), b"0", len(content)), padded(content)]
            else:
                parts.append(tar_header(name.encode(), random.choice([b"1", b"2"]), link=target.encode()))
        archive = _compressed(random, b"".join(parts) + bytes(1024))
    _extract(random, folder, archive)


def _extract(random: random.Random, folder: Path, archive: bytes) -> None:
    """Extract an archive twice, the second time over the first one's files, and check the result."""
    (folder / "archive").write_bytes(archive)
    (folder / "new").mkdir()
    encoding = random.choice(["", "", "cp932", "latin-1"])
    limits = SourceLimits(_FILES, _BYTES)
    options = SourceOptions(limits, encoding, random.random() < 0.8, work=folder / "work")
    with Ledger(folder / "ledger", "key") as ledger:
        for _ in range(2):
            source = open_local(folder / "archive", "given", options)
            unpack(source, folder / "new", ledger, LocalEngine(1), Reporter("fuzz", "json"), limits)
        for entry in ledger.entries():
            path = folder / "new" / entry.path
            assert path.is_file()
            assert not path.is_symlink()
            assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
    beside = {path.name for path in folder.iterdir()}
    assert beside <= {"archive", "new", "work", "ledger", "ledger-wal", "ledger-shm", "ledger-journal"}, beside


def _bytes(random: random.Random, most: int) -> bytes:
    makers: list[Callable[[int], bytes]] = [random.randbytes, bytes]
    content = random.choice(makers)(random.choice([0, 1, random.randrange(most), most]))
    return content * (1000 if random.random() < 0.02 else 1)


def _name(random: random.Random, evil: float) -> bytes:
    name = random.choice(_NAMES) if random.random() < evil else f"{random.choice('abc')}/{random.randrange(500)}.jpg"
    encoded = name.encode(random.choice(["utf-8", "utf-16-le"]) if random.random() < evil else "utf-8")
    return (encoded + random.randbytes(4) if random.random() < evil / 5 else encoded)[:60_000]


def _zip(random: random.Random, evil: float, deep: bool = True) -> bytes:
    entries = []
    for _ in range(random.randrange(12)):
        content = _zip(random, evil, deep=False) if deep and random.random() < 0.1 else _bytes(random, 3000)
        entry = ZipEntry(
            _name(random, evil), content, random.choice(_METHODS if random.random() < evil else _READ_METHODS)
        )
        entry.host, entry.flags = (
            random.choice([0, 3, 10, 19, 77]),
            random.choice([0, 0x800, 8, 1] if random.random() < evil else [0, 0x800]),
        )
        entry.mode = random.choice(
            [0, 0o100644, 0o120777, 0o040755, 0o010644] if random.random() < evil else [0o100644]
        )
        entry.extra, entry.local_extra = _extra(random, entry.name), _extra(random, entry.name)
        for field in ("size", "packed_size", "offset", "crc"):
            if random.random() < evil / 5:
                setattr(entry, field, random.choice(_NUMBERS))
        if random.random() < evil / 5:
            entry.data = random.randbytes(random.randrange(300))
        entries.append(entry)
    return zip_of(
        entries,
        random.choice([b"", b"", b"PK00", b"MZ" * 99]),
        random.random() < 0.5,
        random.choice([b"", b"a comment", b"PK\5\6" * 9]),
        random.choice([b"", b"", b"junk"]),
    )


def _extra(random: random.Random, name: bytes) -> bytes:
    kind = random.randrange(8)
    if kind == 0:
        return archives.unicode_path(name, random.choice(_NAMES), random.choice([None, 1]))
    if kind == 1:
        numbers = [random.choice([*_NUMBERS, 1 << 40, (1 << 64) - 1]) for _ in range(random.randrange(4))]
        return archives.extra_field(1, struct.pack(f"<{len(numbers)}Q", *numbers))
    return random.randbytes(random.randrange(12)) if kind == 2 else b""


def _tar(random: random.Random, evil: float, deep: bool = True) -> bytes:
    parts = []
    for _ in range(random.randrange(12)):
        if random.random() < 0.2 + evil:
            parts.append(_extension(random, evil))
        content = _zip(random, evil, deep=False) if deep and random.random() < 0.1 else _bytes(random, 3000)
        size = random.choice(_SIZES) if random.random() < evil / 5 else len(content)
        kind = random.choice(
            [b"0", b"\0"]
            if random.random() > evil
            else [b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"M", b"V", b"D", b"Z"]
        )
        magic = random.choice([b"ustar\x0000", b"ustar  \0", b""])
        prefix = random.choice([b"", b"p", b"../", b"x" * 155] if random.random() < evil else [b"", b"p"])
        parts += [
            tar_header(_name(random, evil)[:100], kind, size, _name(random, evil)[:100], magic, prefix),
            padded(content),
        ]
    return b"".join(parts) + bytes(random.choice([1024, 10240, 100_000] if random.random() > evil else [0, 512]))


_SIZES = [
    b"\xff" * 12,
    b"\x80" + bytes(3) + b"\x7f" * 8,
    b"77777777777\0",
    b"-1\0".ljust(12, b"\0"),
    b"x" * 12,
    b" " * 12,
]


def _extension(random: random.Random, evil: float) -> bytes:
    kind = random.choice([b"x", b"g", b"L", b"K", b"X"] if random.random() < evil else [b"x", b"g"])
    content = _name(random, evil)
    if kind in b"xgX":
        key = random.choice(
            [b"path", b"linkpath", b"size", b"GNU.sparse.major"] if random.random() < evil else [b"comment", b"mtime"]
        )
        value = random.choice([content, b"%d" % random.choice(_NUMBERS), b"", b"-1", b"9" * 30])
        record = b" " + key + b"=" + value + b"\n"
        length = len(record) + len(str(len(record) + 4))
        content = b"%d" % (length if random.random() > evil / 3 else random.choice([0, -1, 10**15])) + record
    size = len(content) if random.random() > evil / 5 else random.choice([0, 2 << 20, 7 << 30])
    return tar_header(b"././@Extension", kind, size) + padded(content)


def _compressed(random: random.Random, tar: bytes) -> bytes:
    pack = random.choice(
        [
            bytes,
            bytes,
            lambda plain: gzip.compress(plain, 1),
            lambda plain: bz2.compress(plain, 1),
            lambda plain: lzma.compress(plain, preset=0),
            lambda plain: lzma.compress(plain, lzma.FORMAT_ALONE, preset=0),
            zstandard.compress,
        ]
    )
    if random.random() < 0.2 and tar:
        half = random.randrange(len(tar))
        return bytes(pack(tar[:half]) + bytes(random.choice([0, 0, 4, 512])) + pack(tar[half:]))
    return bytes(pack(tar))


def _damaged(random: random.Random, archive: bytes) -> bytes:
    """Return the archive, usually with some bytes replaced, cut out, inserted, repeated or cut off."""
    damaged = bytearray(archive)
    for _ in range(random.choice([0, 0, 0, 1, 2, 5])):
        at = random.randint(max(0, len(damaged) - random.choice([100, 100_000])), len(damaged))
        length = random.choice([0, 1, 2, 4, 8, 64])
        put = random.choice(
            [b"", b"\xff" * length, b"\0" * length, random.randbytes(length), bytes(damaged[at - 64 : at])]
        )
        damaged[at : at + length] = put
    if random.random() < 0.05:
        del damaged[random.randint(0, len(damaged)) :]
    if random.random() < 0.3:
        _put_checksum_right(damaged)
    return bytes(damaged)


def _put_checksum_right(archive: bytearray) -> None:
    """Correct the checksum of a tar's first header, so that readers see the damage."""
    if len(archive) >= 512:
        archive[148:156] = b" " * 8
        archive[148:156] = b"%06o\0 " % sum(archive[:512])
