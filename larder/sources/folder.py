"""A local folder as a source."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from larder.sources.archive import Options
from larder.sources.limits import Meter
from larder.sources.members import CHUNK_BYTES, DEEPEST, Faults, Member, UnsafeNameError, is_litter, safe_path, shown

_DEFAULTS = Options()
_TOOLS_FOLDERS = {".git", ".hg", ".svn", ".dvc"}
"""What version control keeps beside the files; git-annex and DVC keep there what the files are links to."""
_FIX = "fix or remove them in the folder, or copy what they mean (`cp -rL FOLDER COPY`) and give the copy"
_FIX_LINKS = (
    "fetch what they point to (`git annex get`, `dvc pull`, `hf download`), or give a copy with the files "
    "in their place (`cp -rL FOLDER COPY`): a container sees nothing outside the folder"
)


class Found(NamedTuple):
    """A file below the folder, what keeps it from being read, if anything, and what helps then."""

    path: str
    facts: os.stat_result | None
    why: str = ""
    next_step: str = _FIX


class FolderSource:
    """Every file below a folder, its hidden folders of version control left out.

    Links are followed, to files and to folders: a folder is its user's own, and caches lay data out so. What is copied
    are the files that they point to. With `follow_links` off, those that lead out of the folder are refused.
    """

    parallel = True
    counted = True
    verb = "copy"
    total: int | None = None

    def __init__(self, path: Path, name: str, options: Options = _DEFAULTS) -> None:
        self.path, self.name, self.options = path, name, options

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`."""
        faults = Faults()
        for found in self._files():
            if is_litter(found.path):
                continue
            if found.facts is None:
                faults.add(found.path, found.why, found.next_step)
                continue
            try:
                yield Member(safe_path(found.path), found.facts.st_size)
            except UnsafeNameError as fault:
                faults.add(found.path, fault, _FIX)
        faults.raise_if_any(self.name)

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        with (self.path / member.path).open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def state(self) -> str:
        """A digest of all names, sizes and times, independent of their order, that costs no reading."""
        total = 0
        for found in self._files():
            if is_litter(found.path):
                continue
            size, time = (found.facts.st_size, found.facts.st_mtime_ns) if found.facts else (0, 0)
            line = f"{found.path}\0{size}\0{time}"
            total += int.from_bytes(hashlib.sha256(os.fsencode(line)).digest())
        return f"{total % (1 << 256):064x}"

    def _files(self) -> Iterator[Found]:
        """Every file, with what is wrong with it; no folder is entered from within itself."""
        root = os.path.realpath(self.path)
        yield from self._below(root, "", (_identity(os.stat(root)),), Meter(self.name, self.options.limits))

    def _below(self, root: str, folder: str, above: tuple[tuple[int, int], ...], meter: Meter) -> Iterator[Found]:
        """Every file below `folder`, which ends with a slash; `above` are the folders that it lies in, and itself."""
        meter.skip()
        with os.scandir(f"{root}/{folder}") as items:
            for item in items:
                path = f"{folder}{item.name}"
                found = _look_at(item, path, root, self.options.follow_links)
                if found.facts is None or not stat.S_ISDIR(found.facts.st_mode):
                    yield found
                elif item.name in _TOOLS_FOLDERS:
                    meter.skip()
                elif (this := _identity(found.facts)) in above:
                    yield Found(path, None, "leads back to a folder that it lies in")
                elif len(above) > DEEPEST:
                    yield Found(path, None, f"lies more than {DEEPEST} folders deep")
                else:
                    yield from self._below(root, f"{path}/", (*above, this), meter)


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino


def _look_at(item: os.DirEntry[str], path: str, root: str, follow_links: bool) -> Found:
    """A file or folder with its facts; those of what it points to, for a link."""
    if not item.is_symlink():
        facts = item.stat(follow_symlinks=False)
        if stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode):
            return Found(path, facts)
        return Found(path, None, "is a device, pipe or socket")
    target = shown(os.readlink(item.path))
    try:
        facts = item.stat()
    except OSError as fault:  # it points to nothing, or to itself
        return Found(path, None, f"is a link to {target}, which is no file ({fault.strerror})", _FIX_LINKS)
    if not follow_links and not _is_inside(item.path, root):
        return Found(path, None, f"is a link that leaves the folder, to {target}", _FIX_LINKS)
    if stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode):
        return Found(path, facts)
    return Found(path, None, f"is a link to {target}, which is no file but a device, pipe or socket")


def _is_inside(path: str, root: str) -> bool:
    return os.path.commonpath([os.path.realpath(path), root]) == root
