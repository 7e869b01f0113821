"""Objects below a prefix of an S3 store, as a source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from larder.progress import Reporter
from larder.sources import prefix_reader
from larder.sources.members import Member
from larder.sources.prefix_reader import S3Object, is_md5
from services.extract.download import download
from services.extract.remotes.s3 import S3Remote
from services.extract.settings import ExtractSettings


class PrefixDownloader(prefix_reader.PrefixReader):
    """A prefix whose objects can be downloaded."""

    def __init__(self, uri: str, settings: ExtractSettings, max_keys: int) -> None:
        super().__init__(uri, settings, max_keys)
        self._max_bytes = settings.max_download

    def fetch(self, item: S3Object, scratch: Path, reporter: Reporter) -> Path:
        """Download an object, resuming an earlier download, check its MD5 and return its path."""
        version = hashlib.sha256(f"{item.key}\0{item.etag}\0{item.bytes}".encode()).hexdigest()[:16]
        path = download(S3Remote(self._uri(item), self._settings), scratch / version, reporter, self._max_bytes)
        if path.stat().st_size == item.bytes and (not is_md5(item.etag) or self._is_intact(item, path)):
            return path
        path.unlink()
        raise self._read_error(item, f"sent other bytes than its listing says (ETag {item.etag}, {item.bytes:,} bytes)")

    def _is_intact(self, item: S3Object, path: Path) -> bool:
        with path.open("rb") as file:
            if hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == item.etag:
                return True
        head: Any = self._client.head_object(Bucket=self.bucket, Key=item.key)
        return not self._has_md5(head, item.etag)


class ListingFile:
    """A listing in a file, so that memory doesn't limit it: a JSON line per object, and a digest of all lines."""

    def __init__(self, path: Path) -> None:
        self.path, self.files, self.bytes, self.sha256 = path, 0, 0, ""

    def write(self, objects: Iterable[S3Object]) -> None:
        """Write the objects to the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with self.path.open("wb") as file:
            for item in objects:
                self.files, self.bytes = self.files + 1, self.bytes + item.bytes
                line = json.dumps(item, ensure_ascii=False).encode() + b"\n"
                digest.update(line)
                file.write(line)
        self.sha256 = digest.hexdigest()

    def __iter__(self) -> Iterator[S3Object]:
        with self.path.open("rb") as file:
            for line in file:
                yield S3Object(*json.loads(line))


class PrefixSource:
    """Objects below a prefix as a source of files."""

    parallel = True
    sizes_known = True
    action = "download"
    total: int | None = None
    threads = 16
    """Parallel requests per process: waiting for an object's first byte takes longer than receiving the rest."""

    def __init__(self, prefix: PrefixDownloader, listing: ListingFile) -> None:
        self.name, self._prefix, self._listing = prefix.name, prefix, listing

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`."""
        for item in self._listing:
            yield Member(item.path, item.bytes, item)

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        return self._prefix.read(member.location)
