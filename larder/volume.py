"""An artifact's place on a volume: built beside its final name, verified, swapped in whole.

On the volume:

    <volume>/<name>/                what readers see: the old data or the new, never a mix
    <volume>/.larder/<name>/        the data under construction and its ledger
    <volume>/.larder/lock           held while a stage writes
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from larder.contract import META, IndexEntry, IndexSummary, Manifest, write_index
from larder.dataset import DEFAULT, folder_of
from larder.errors import StorageError
from larder.ledger import Ledger

WORK = ".larder"
RAW = "raw"  # what extract leaves
TREE, SHARDS, CHUNKS = (folder_of(DEFAULT, layout) for layout in ("tree", "webdataset", "litdata"))

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h
_SYNC_FILE_RANGE_WRITE = 2


class Slot:
    """The place of one artifact, `name`, on the volume at `root`."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.folder = root / name
        self.work = root / WORK / name
        self.staged = self.work / "new"
        self.downloads = self.work / "downloads"
        self.ledger_path = self.work / "ledger.sqlite"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other writer off the volume. The kernel lets go of it when the process ends, however it ends.

        A swap that an earlier run was killed in is completed. Raises StorageError when another run holds the lock.
        """
        if not self.root.is_dir():
            raise StorageError(
                f"{self.root} is not a folder", next_step="mount the volume there, or set LARDER_VOLUME_DIR"
            )
        (self.root / WORK).mkdir(exist_ok=True)
        with (self.root / WORK / "lock").open("w") as file:
            _flock(file, fcntl.LOCK_EX, "using", self.root)
            if self._mark.exists():
                self._complete_swap()
            yield

    def recover(self) -> None:
        """Complete the swap that an earlier run was killed in, if any: call it before looking at what is there."""
        if self._mark.exists():
            with suppress(StorageError, OSError), self.lock():  # in use or read-only: some other time
                pass

    def resume(self, ledger: Ledger) -> bool:
        """Whether the data under construction goes on from an earlier run.

        If not, its place and ledger are emptied; downloads stay.
        """
        if ledger.resumed and self.staged.is_dir():
            return True
        ledger.clear()
        for item in self.work.iterdir():
            if item.is_dir() and item != self.downloads:
                remove_tree(item)
        self.staged.mkdir(parents=True)
        return False

    def write_index(self, entries: Iterable[IndexEntry]) -> IndexSummary:
        """Write the index of the data under construction; `entries` come sorted by path."""
        self.meta.mkdir(parents=True, exist_ok=True)
        return write_index(self.meta / "index.jsonl", entries)

    def commit(self, manifest: Manifest, run: dict[str, Any], ledger: Ledger, inner: str = "") -> None:
        """Put index and manifest beside the finished data, flush all to disk, and swap them in for the old data.

        `inner` is the folder of the staged data that becomes the artifact, "" for all of it. Until the mark is
        written, a run that dies is resumed from `ledger`; from then on, the next run completes the swap.
        """
        (self.meta / "run.json").write_text(json.dumps(run, indent=2, ensure_ascii=False) + "\n")
        _sync(self.root)  # data before the manifest that vouches for it
        _write_durably(self.meta / "manifest.json", manifest.to_json().encode())
        new = self.staged / inner
        if (new / META).exists():
            remove_tree(new / META)  # of a run that was killed right here
        self.meta.rename(new / META)
        _sync_folder(new)
        _write_durably(self._mark, json.dumps({"inner": inner, "inode": new.stat().st_ino}).encode())
        ledger.remove()
        self._complete_swap()

    def discard(self) -> None:
        """Forget the work: what it was for is done elsewhere."""
        remove_tree(self.work)

    def _complete_swap(self) -> None:
        mark = json.loads(self._mark.read_bytes())
        new = self.staged / mark["inner"]
        if new.is_dir() and new.stat().st_ino == mark["inode"]:  # a folder keeps its inode when it is renamed
            swap_in(new, self.folder)
        for item in self.work.iterdir():  # the old data, and all that was needed on the way
            if item.is_dir():
                remove_tree(item)
            elif item != self._mark:
                item.unlink()
        self._mark.unlink()
        self.work.rmdir()

    @property
    def meta(self) -> Path:
        """Where the index and the manifest of the data under construction are written."""
        return self.work / META

    @property
    def _mark(self) -> Path:
        """Says that the staged data are complete, and which they are."""
        return self.work / "commit.json"


@contextmanager
def reading(root: Path) -> Iterator[None]:
    """Keep writers off the volume, and let other readers be. Nothing is written, so that it may be read-only.

    Raises StorageError when a run is writing there.
    """
    try:
        file = (root / WORK / "lock").open()
    except (FileNotFoundError, NotADirectoryError):  # no stage has ever written there
        yield
        return
    with file:
        _flock(file, fcntl.LOCK_SH, "writing to", root)
        yield


def _flock(file: IO[str], how: int, doing: str, root: Path) -> None:
    """Take a lock, or raise StorageError when another process holds it, which is `doing` something to `root`."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        name = volume_name(root)
        held = f"the volume {name} ({root})" if name else str(root)
        see = f"docker ps --filter volume={name}" if name else f"fuser -v {root}/{WORK}/lock"
        raise StorageError(
            f"another run is {doing} {held}",
            next_step=f"wait until it has ended, or end it (`{see}` shows it), then run again",
        ) from None


def volume_name(root: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """What a container engine calls the volume that is mounted at `root`; empty where nothing tells, or it is none.

    Engines keep a volume in .../volumes/<name>/_data, which the kernel names in its table of mounts (proc(5)).
    """
    with suppress(OSError):
        for line in mounts.read_text().splitlines():
            origin, place = line.split(" ", 5)[3:5]
            if place == str(root) and (found := re.fullmatch(r".*/volumes/([^/]+)/_data", origin)):
                return found[1]
    return ""


def swap_in(new: Path, place: Path) -> None:
    """Move folder `new` to `place` in one step; what was at `place` is then at `new`."""
    if not place.exists():
        new.rename(place)
    elif not _exchange(new, place):
        old = new.with_name(new.name + ".old")
        place.rename(old)
        new.rename(place)
        old.rename(new)
    _sync_folder(place.parent)


def remove_tree(folder: Path) -> None:
    """Delete a folder with all that is in it.

    shutil.rmtree lists each folder whole, which grows with the images, and calls itself for each level.
    """
    waiting = [str(folder)]
    while waiting:
        inside = []
        with os.scandir(waiting[-1]) as items:
            for item in items:
                if item.is_dir(follow_symlinks=False):
                    inside.append(item.path)
                else:
                    os.unlink(item.path)
        if inside:
            waiting += inside
        else:
            os.rmdir(waiting.pop())


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically: renameat2(2), in Linux since 3.15. False where it isn't supported."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    fault = ctypes.get_errno()
    if fault in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(fault, os.strerror(fault), str(one))


def _write_durably(path: Path, content: bytes) -> None:
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(root: Path) -> None:
    """Flush the file system of `root` alone where the C library can, else all of them."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    descriptor = os.open(root, os.O_RDONLY)
    try:
        if syncfs(descriptor) != 0:
            fault = ctypes.get_errno()
            raise OSError(fault, os.strerror(fault), str(root))
    finally:
        os.close(descriptor)


def start_writeback(descriptor: int) -> None:
    """Have the kernel write to disk what it holds of a file, without waiting for that (Linux; elsewhere nothing)."""
    start = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if start is not None:
        start(descriptor, ctypes.c_longlong(0), ctypes.c_longlong(0), _SYNC_FILE_RANGE_WRITE)


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise StorageError unless the file system of `folder` has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"{what} needs {needed / 1e9:.3f} GB on {folder}, and {free / 1e9:.3f} GB are free",
            next_step="free some space or give the volume a larger disk, then run again",
        )
