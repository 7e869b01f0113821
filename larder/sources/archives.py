"""Several archives as one source."""

from __future__ import annotations

import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from larder.sources import FolderSource, Options, open_local
from larder.sources.archive_folders import ArchiveFolders, below, folder_of
from larder.sources.kinds import is_archive, is_hidden, is_parquet
from larder.sources.members import Member, Source
from larder.sources.parts import Part

_OPEN_AT_ONCE = 4


class ArchivesSource:
    """The files of several archives, and of the folder they lie in, if any. An archive's files go below a folder that
    is named after it, unless they lie below one of that name already.
    """

    verb = "unpack"
    total: int | None = None

    def __init__(
        self, name: str, parts: Sequence[Part], rule: ArchiveFolders, options: Options, beside: Path | None = None
    ) -> None:  # fmt: skip
        self.name, self.parts, self._options, self._beside = name, list(parts), options, beside
        self._folders = [folder_of(part.name, rule) for part in self.parts]
        self._open: OrderedDict[int, Source] = OrderedDict()
        self.parallel = self.counted = True
        for number in range(len(self.parts)):  # each is looked at before any is unpacked
            source = self._source(number)
            self.parallel, self.counted = self.parallel and source.parallel, self.counted and source.counted

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`."""
        for number in range(len(self.parts)):
            yield from self._members(number)
        if self._beside is not None:
            for member in _Beside(self._beside, self.name, self._options).scan():
                yield member._replace(place=(-1, member))

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        number, inner = member.place
        if self._beside is not None and number < 0:
            return _Beside(self._beside, self.name, self._options).read(inner)
        return self._source(number).read(inner)

    def holders(self, path: str) -> list[str]:
        """The first two places that a path comes from: for an error, since all are scanned again."""
        fresh = ArchivesSource.__new__(ArchivesSource)  # what is being read must not be disturbed
        fresh.__dict__ = self.__getstate__()
        found = (self._named(member) for member in fresh.scan() if member.path == path)
        return list(itertools.islice(found, 2))

    def _named(self, member: Member) -> str:
        number, inner = member.place
        return f"{self.parts[number].name} ({inner.path})" if number >= 0 else inner.path

    def _members(self, number: int) -> Iterator[Member]:
        folder = self._folders[number]
        for member in self._source(number).scan():
            link = None if member.link is None else below(folder, member.link)
            yield Member(below(folder, member.path), member.bytes, (number, member), link)

    def _source(self, number: int) -> Source:
        """An archive, opened. A few are kept so: a process may have only so many files open."""
        if number not in self._open:
            part = self.parts[number]
            self._open[number] = open_local(part.path, part.name, self._options)
            while len(self._open) > _OPEN_AT_ONCE:
                _, oldest = self._open.popitem(last=False)
                if (close := getattr(oldest, "close", None)) is not None:
                    close()
        self._open.move_to_end(number)
        return self._open[number]


class _Beside(FolderSource):
    """What lies beside archives in their folder: tables, above all."""

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`."""
        return (member for member in super().scan() if not is_archive(member.path) and not is_hidden(member.path))


def sha256_of_parts(digests: Sequence[str], parts: Sequence[Part]) -> str:
    """The sha256 of what `sha256sum` prints of files: it identifies a source of several."""
    lines = "".join(f"{digest}  {part.name}\n" for digest, part in zip(digests, parts, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def parts_of(folder: FolderSource, kind: Literal["archives", "parquet"]) -> list[Part]:
    """The archives, or the Parquet files, below a folder; hidden ones are none."""
    is_part = is_archive if kind == "archives" else is_parquet
    paths = sorted(member.path for member in folder.scan() if is_part(member.path) and not is_hidden(member.path))
    return [Part(folder.path / path, path) for path in paths]
