"""Read a local folder as a source."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from larder.sources.archive import SourceOptions
from larder.sources.limits import ReadMeter
from larder.sources.members import (
    BUFFER_BYTES,
    MAX_DEPTH,
    EntryFaults,
    Member,
    UnsafeNameError,
    is_litter,
    quote_name,
    safe_path,
)

_DEFAULTS = SourceOptions()
_TOOLS_FOLDERS = {".git", ".hg", ".svn", ".dvc"}
"""Folders of version control tools, which are left out. git-annex and DVC store there the targets of links."""
_FIX = "fix or remove them, or copy their targets (`cp -rL FOLDER COPY`) and give the copy"
_FIX_LINKS = (
    "fetch what they point to (`git annex get`, `dvc pull`, `hf download`), or give a copy with the files "
    "instead of links (`cp -rL FOLDER COPY`): a container sees nothing outside the folder"
)


class ScannedFile(NamedTuple):
    """A file below the folder. If it can't be read, `stat_result` is None, and `fault` and `next_step` explain it."""

    path: str
    stat_result: os.stat_result | None
    fault: str = ""
    next_step: str = _FIX


class FolderSource:
    """All files below a folder, without the folders of version control tools.

    Links to files and folders are followed, since the folder belongs to the user, and caches of datasets consist of
    links. The files that they point to are copied. If `options.follow_links` is False, links that point outside the
    folder are refused.
    """

    parallel = True
    sizes_known = True
    action = "copy"
    total: int | None = None

    def __init__(self, path: Path, name: str, options: SourceOptions = _DEFAULTS) -> None:
        self.path, self.name, self.options = path, name, options

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`."""
        faults = EntryFaults()
        for file in self._files():
            if is_litter(file.path):
                continue
            if file.stat_result is None:
                faults.add(file.path, file.fault, file.next_step)
                continue
            try:
                yield Member(safe_path(file.path), file.stat_result.st_size)
            except UnsafeNameError as fault:
                faults.add(file.path, fault, _FIX)
        faults.raise_if_any(self.name)

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        with (self.path / member.path).open("rb", buffering=0) as file:
            while chunk := file.read(BUFFER_BYTES):
                yield chunk

    def metadata_digest(self) -> str:
        """Return a digest of all names, sizes and modification times, in any order, without reading the files."""
        total = 0
        for file in self._files():
            if is_litter(file.path):
                continue
            size, time = (file.stat_result.st_size, file.stat_result.st_mtime_ns) if file.stat_result else (0, 0)
            line = f"{file.path}\0{size}\0{time}"
            total += int.from_bytes(hashlib.sha256(os.fsencode(line)).digest())
        return f"{total % (1 << 256):064x}"

    def _files(self) -> Iterator[ScannedFile]:
        """Yield every file, with its fault if it can't be read. Links that form a cycle are faults."""
        root = os.path.realpath(self.path)
        yield from self._below(root, "", (_identity(os.stat(root)),), ReadMeter(self.name, self.options.limits))

    def _below(
        self, root: str, folder: str, above: tuple[tuple[int, int], ...], meter: ReadMeter
    ) -> Iterator[ScannedFile]:
        """Yield every file below `folder`, which ends with a slash. `above` identifies it and the folders above it."""
        meter.count_skipped()
        with os.scandir(f"{root}/{folder}") as entries:
            for entry in entries:
                path = f"{folder}{entry.name}"
                file = _stat_entry(entry, path, root, self.options.follow_links)
                if file.stat_result is None or not stat.S_ISDIR(file.stat_result.st_mode):
                    yield file
                elif entry.name in _TOOLS_FOLDERS:
                    meter.count_skipped()
                elif (identity := _identity(file.stat_result)) in above:
                    yield ScannedFile(path, None, "leads back to a folder that it lies in")
                elif len(above) > MAX_DEPTH:
                    yield ScannedFile(path, None, f"lies more than {MAX_DEPTH} folders deep")
                else:
                    yield from self._below(root, f"{path}/", (*above, identity), meter)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _stat_entry(entry: os.DirEntry[str], path: str, root: str, follow_links: bool) -> ScannedFile:
    """Return a file or folder with its `os.stat`; for a link, with that of its target."""
    if not entry.is_symlink():
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            return ScannedFile(path, status)
        return ScannedFile(path, None, "is a device, pipe or socket")
    try:
        target = quote_name(os.readlink(entry.path))
    except OSError as fault:  # the path leads through more links than the system follows
        return ScannedFile(path, None, f"is a link that can't be read ({fault.strerror})", _FIX_LINKS)
    try:
        status = entry.stat()
    except OSError as fault:  # the link is broken or points to itself
        return ScannedFile(path, None, f"is a link to {target}, which is not a file ({fault.strerror})", _FIX_LINKS)
    if not follow_links and not _is_inside(entry.path, root):
        return ScannedFile(path, None, f"is a link that leaves the folder, to {target}", _FIX_LINKS)
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        return ScannedFile(path, status)
    return ScannedFile(path, None, f"is a link to {target}, which is a device, pipe or socket")


def _is_inside(path: str, root: str) -> bool:
    return os.path.commonpath([os.path.realpath(path), root]) == root
