"""A dataset in every kind of archive, and an HTTP server with faults."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zstandard

from larder.contract import find_manifest, find_missing_file, read_index
from tests.integration.conftest import Disk

_RANDOM = random.Random(7)
FILES = {
    f"{split}/{label}_{number}.jpg": _RANDOM.randbytes(3000)
    for split in ("training", "validation", "evaluation")
    for label in range(3)
    for number in range(8)
}
FILES |= {"training/empty.jpg": b"", "training/a b.jpg": b"1", "training/-rf": b"2", "training/图é.jpg": b"3"}
FILES |= {"training/new\nline.jpg": b"4"}
LITTER = {
    "__MACOSX/training/._0_0.jpg": b"x",
    ".DS_Store": b"x",
    "training/.DS_Store": b"x",
    "_larder/index.jsonl": b"x",
}


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def nested(files: dict[str, bytes]) -> bytes:
    """Build a zip with a zip or tar.gz for each folder, like competitions."""
    folders: dict[str, dict[str, bytes]] = {}
    for name, content in files.items():
        folder, _, file = name.rpartition("/")
        folders.setdefault(folder, {})[file] = content
    outer = folders.pop("", {})
    for number, (folder, inner) in enumerate(folders.items()):
        if number % 2:
            outer[f"{folder}.zip"] = zipped(inner)
        else:
            outer[f"{folder}.tar.gz"] = gzip.compress(tarred(inner), 1)
    return zipped(outer)


Pack = Callable[[dict[str, bytes]], bytes]
WriteArchive = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
"""Runs extract in this process: exit code and stderr."""
Put = Callable[[dict[str, bytes]], None]
PACKERS: dict[str, Pack] = {
    "zip": zipped,
    "tar": tarred,
    "tar.gz": lambda files: gzip.compress(tarred(files), 1),
    "tar.zst": lambda files: zstandard.compress(tarred(files)),
    "tar.bz2": lambda files: bz2.compress(tarred(files), 1),
    "tar.xz": lambda files: lzma.compress(tarred(files), preset=0),
    "nested.zip": nested,
}


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """The dataset: path to content."""
    return FILES


@pytest.fixture(scope="session")
def litter() -> dict[str, bytes]:
    """Junk files that desktops and archivers add."""
    return LITTER


@pytest.fixture(scope="session")
def packers() -> dict[str, Pack]:
    """How to pack files, by the ending of the archive's name."""
    return PACKERS


@pytest.fixture
def pack(tmp_path: Path) -> WriteArchive:
    """Writes an archive: `pack("a.zip", files)`."""

    def write(name: str, content: dict[str, bytes] | None = None) -> Path:
        path = tmp_path / name
        path.write_bytes(PACKERS[name.partition(".")[2]](FILES if content is None else content))
        return path

    return write


class Raw:
    """The `raw/` of a volume, and its invariants."""

    def __init__(self, volume: Path) -> None:
        self.folder = volume / "raw"

    def content(self) -> dict[str, bytes]:
        """Return every file, verified against index and manifest."""
        manifest = find_manifest(self.folder)
        assert manifest is not None, "there is no manifest"
        assert find_missing_file(self.folder, manifest) is None
        entries = list(read_index(self.folder, manifest))
        assert [entry.path for entry in entries] == sorted((entry.path for entry in entries), key=os.fsencode)
        contents = {}
        for entry in entries:
            contents[entry.path] = (self.folder / entry.path).read_bytes()
            assert hashlib.sha256(contents[entry.path]).hexdigest() == entry.sha256
        assert (manifest.files, manifest.bytes) == (len(contents), sum(map(len, contents.values())))
        there = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if not path.is_dir()}
        assert there == contents.keys() | {f"_larder/{name}" for name in ("manifest.json", "index.jsonl", "run.json")}
        return contents

    def meta(self, name: str) -> bytes:
        """Return a file of `_larder/`."""
        return (self.folder / "_larder" / name).read_bytes()


@pytest.fixture
def raw(volume: Path) -> Raw:
    """The `raw/` of `volume`."""
    return Raw(volume)


class Asked(NamedTuple):
    """A request that the server saw."""

    path: str
    range: str | None
    if_range: str | None
    sent: int


class Faults:
    """A file on an HTTP server, and how the server misbehaves."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.content = b""
        self.etag: str | None = '"one"'
        self.statuses: list[tuple[int, dict[str, str]]] = []
        """Answers to give before the file: status and headers."""
        self.break_after: list[int] = []
        """For the next answers: break the connection after so many bytes."""
        self.ignore_ranges = False
        self.ignore_if_range = False
        self.length: int | None = None
        """A wrong Content-Length."""
        self.no_length = False
        self.asked: list[Asked] = []
        self.after_answer: Callable[[], None] = lambda: None

    def url(self, path: str = "/food.zip", user: str = "") -> str:
        """Return the file's URL."""
        return f"http://{user}127.0.0.1:{self.port}{path}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        faults: Faults = self.server.faults  # type: ignore[attr-defined]
        asked, if_range = self.headers.get("Range"), self.headers.get("If-Range")
        self.close_connection = True
        status, headers, body = self._answer(faults, asked, if_range)
        # before the answer: a test that has the answer finds the request recorded
        faults.asked.append(Asked(self.path, asked, if_range, len(body)))
        faults.after_answer()
        self.send_response(status)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):  # the client has gone
            self.wfile.write(body)

    def _answer(self, faults: Faults, asked: str | None, if_range: str | None) -> tuple[int, dict[str, str], bytes]:
        if faults.statuses:
            status, headers = faults.statuses.pop(0)
            return status, headers | {"Content-Length": "0"}, b""
        content, start = faults.content, 0
        fresh = faults.ignore_if_range or if_range == faults.etag
        if asked and fresh and not faults.ignore_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return 416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"}, b""
        headers = {"ETag": faults.etag} if faults.etag else {}
        if not faults.no_length:
            headers["Content-Length"] = str(faults.length or len(content) - start)
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if faults.break_after:
            body = body[: faults.break_after.pop(0)]
        return 206 if start else 200, headers, body


@pytest.fixture
def server() -> Iterator[Faults]:
    """An HTTP server on loopback. Tests set its file and its faults."""
    listening = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    listening.faults = Faults(listening.server_port)  # type: ignore[attr-defined]
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield listening.faults  # type: ignore[attr-defined]
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture
def raw_on(disk: Disk) -> Raw:
    """The `raw/` of the small disk."""
    return Raw(disk.seen)
