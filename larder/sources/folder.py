"""A local folder as a source."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from larder.sources.members import CHUNK_BYTES, Member, UnsafeNameError, is_litter, refuse, safe_path


class FolderSource:
    """Every file below a folder. Links to files inside it are followed; those that leave it are refused."""

    parallel = True
    counted = True
    verb = "copy"
    total: int | None = None

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`."""
        root = os.path.realpath(self.path)
        for item in _walk(root):
            relative = os.fsdecode(os.path.relpath(item.path, root))
            if is_litter(relative):
                continue
            try:
                yield Member(safe_path(relative), _size(item, root))
            except UnsafeNameError as fault:
                raise refuse(self.name, [f"{relative!r} {fault}"]) from None

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        with (self.path / member.path).open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def state(self) -> str:
        """A digest of all names, sizes and times, independent of their order, that costs no reading."""
        root, total = os.path.realpath(self.path), 0
        for item in _walk(root):
            relative = os.path.relpath(item.path, root)
            if is_litter(relative):
                continue
            try:
                facts = item.stat()
            except OSError:  # a broken link, which `scan` refuses
                facts = item.stat(follow_symlinks=False)
            line = f"{relative}\0{facts.st_size}\0{facts.st_mtime_ns}"
            total += int.from_bytes(hashlib.sha256(os.fsencode(line)).digest())
        return f"{total % (1 << 256):064x}"


def _walk(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as items:
        for item in items:
            if item.is_dir(follow_symlinks=False):
                yield from _walk(item.path)
            else:
                yield item


def _size(item: os.DirEntry[str], root: str) -> int:
    if item.is_symlink():
        target = os.path.realpath(item.path)
        if os.path.commonpath([target, root]) != root:
            raise UnsafeNameError(f"is a link that leaves the folder, to {os.readlink(item.path)!r}")
        if not os.path.isfile(target):
            raise UnsafeNameError(f"is a link to {os.readlink(item.path)!r}, which is no file")
    facts = item.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise UnsafeNameError("is a device, pipe or socket")
    return facts.st_size
