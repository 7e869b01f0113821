"""Read several archives as one source."""

from __future__ import annotations

import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from larder.sources import FolderSource, SourceOptions, open_local
from larder.sources.archive_folders import ArchiveFolders, join_folder, name_archive_folder
from larder.sources.kinds import is_archive, is_hidden, is_parquet
from larder.sources.members import Member, Source
from larder.sources.parts import SourcePart

_MAX_OPEN = 4


class MultiArchiveSource:
    """The files of several archives, and the other files in the archives' folder, if any.

    The files of an archive get a folder named after it, unless they are already in a folder of that name.

    Args:
        name: Name of the source in messages.
        parts: The archives.
        rule: Value of LARDER_ARCHIVE_FOLDERS.
        options: How to read the archives.
        other_files: Folder of the archives, if its other files belong to the source too; else None.
    """

    action = "unpack"
    total: int | None = None

    def __init__(
        self,
        name: str,
        parts: Sequence[SourcePart],
        rule: ArchiveFolders,
        options: SourceOptions,
        other_files: Path | None = None,
    ) -> None:
        self.name, self.parts, self._options, self._other_files = name, list(parts), options, other_files
        self._folders = [name_archive_folder(part.name, rule) for part in self.parts]
        self._open: OrderedDict[int, Source] = OrderedDict()
        self.parallel = self.sizes_known = True
        for number in range(len(self.parts)):  # check every archive before unpacking any
            source = self._source(number)
            self.parallel, self.sizes_known = self.parallel and source.parallel, self.sizes_known and source.sizes_known

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`."""
        for number in range(len(self.parts)):
            yield from self._members(number)
        if self._other_files is not None:
            for member in _OtherFiles(self._other_files, self.name, self._options).scan():
                yield member._replace(location=(-1, member))

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        number, inner = member.location
        if self._other_files is not None and number < 0:
            return _OtherFiles(self._other_files, self.name, self._options).read(inner)
        return self._source(number).read(inner)

    def find_origins(self, path: str) -> list[str]:
        """Return the first two origins of a path, for an error message. This scans all archives again."""
        fresh = MultiArchiveSource.__new__(MultiArchiveSource)  # a copy, so that reads in progress aren't disturbed
        fresh.__dict__ = self.__getstate__()
        origins = (self._origin(member) for member in fresh.scan() if member.path == path)
        return list(itertools.islice(origins, 2))

    def _origin(self, member: Member) -> str:
        number, inner = member.location
        return f"{self.parts[number].name} ({inner.path})" if number >= 0 else inner.path

    def _members(self, number: int) -> Iterator[Member]:
        folder = self._folders[number]
        for member in self._source(number).scan():
            link = None if member.link is None else join_folder(folder, member.link)
            yield Member(join_folder(folder, member.path), member.bytes, (number, member), link)

    def _source(self, number: int) -> Source:
        """Open an archive, and close the least recently used one if too many are open."""
        if number not in self._open:
            part = self.parts[number]
            self._open[number] = open_local(part.path, part.name, self._options)
            while len(self._open) > _MAX_OPEN:
                _, oldest = self._open.popitem(last=False)
                if (close := getattr(oldest, "close", None)) is not None:
                    close()
        self._open.move_to_end(number)
        return self._open[number]


class _OtherFiles(FolderSource):
    """The other files in a folder of archives, mostly tables."""

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`."""
        return (member for member in super().scan() if not is_archive(member.path) and not is_hidden(member.path))


def sha256_of_parts(digests: Sequence[str], parts: Sequence[SourcePart]) -> str:
    """Return the sha256 of the output of `sha256sum` for the parts, which identifies a source of several files.

    Args:
        digests: The sha256 of each part.
        parts: The parts, in the same order.
    """
    lines = "".join(f"{digest}  {part.name}\n" for digest, part in zip(digests, parts, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def list_parts(folder: FolderSource, kind: Literal["archives", "parquet"]) -> list[SourcePart]:
    """Return the archives or the Parquet files below a folder, sorted by path, without hidden ones."""
    is_part = is_archive if kind == "archives" else is_parquet
    paths = sorted(member.path for member in folder.scan() if is_part(member.path) and not is_hidden(member.path))
    return [SourcePart(folder.path / path, path) for path in paths]
