"""Build an artifact on a volume beside the old one, and swap it in atomically.

On the volume:

    <volume>/<name>/                the artifact: either the old data or the new, never a mix
    <volume>/.larder/<name>/        the unfinished artifact and its ledger
    <volume>/.larder/lock           locked while a stage writes
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
RAW = "raw"  # the folder that extract writes
TREE, SHARDS, CHUNKS = (folder_of(DEFAULT, layout) for layout in ("tree", "webdataset", "litdata"))

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h
_SYNC_FILE_RANGE_WRITE = 2


class StagedArtifact:
    """The folders of one artifact on a volume.

    Args:
        root: Mount point of the volume.
        name: Name of the artifact's folder.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.folder = root / name
        self.work = root / WORK / name
        self.staged = self.work / "new"
        self.downloads = self.work / "downloads"
        self.ledger_path = self.work / "ledger.sqlite"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the volume against other writers, and complete a swap in which an earlier run was killed.

        The kernel releases the lock when the process ends, even by SIGKILL.

        Raises:
            StorageError: If another run holds the lock.
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
        """Complete a swap in which an earlier run was killed. Call it before reading the artifact."""
        if self._mark.exists():
            with (
                suppress(StorageError, OSError),
                self.lock(),
            ):  # if the volume is locked or read-only, a later run completes the swap
                pass

    def resume(self, ledger: Ledger) -> bool:
        """Return whether the work of an earlier run can be continued. If not, delete it, but keep downloads."""
        if ledger.resumed and self.staged.is_dir():
            return True
        ledger.clear()
        for item in self.work.iterdir():
            if item.is_dir() and item != self.downloads:
                remove_tree(item)
        self.staged.mkdir(parents=True)
        return False

    def write_index(self, entries: Iterable[IndexEntry]) -> IndexSummary:
        """Write the index of the unfinished artifact. `entries` must be sorted by path."""
        self.meta_folder.mkdir(parents=True, exist_ok=True)
        return write_index(self.meta_folder / "index.jsonl", entries)

    def commit(self, manifest: Manifest, run: dict[str, Any], ledger: Ledger, inner: str = "") -> None:
        """Flush the new data to disk, write the manifest, and swap the new artifact for the old one.

        The index must already be in `meta_folder`. If the run is killed before the commit mark (`commit.json`) is
        written, the next run resumes from `ledger`. After that, the next run completes the swap.

        Args:
            manifest: Manifest of the new artifact.
            run: Content of run.json.
            ledger: Ledger of the work, which is deleted.
            inner: Subfolder of the staged data that becomes the artifact; "" for all of it.
        """
        (self.meta_folder / "run.json").write_text(json.dumps(run, indent=2, ensure_ascii=False) + "\n")
        if manifest.classes:
            (self.meta_folder / "classes.json").write_text(manifest.classes_json(), encoding="utf-8")
        _sync(self.root)  # flush the data before the manifest that describes it
        _write_durably(self.meta_folder / "manifest.json", manifest.to_json().encode())
        new = self.staged / inner
        if (new / META).exists():
            remove_tree(new / META)  # left by a run that was killed here
        self.meta_folder.rename(new / META)
        _sync_folder(new)
        _write_durably(self._mark, json.dumps({"inner": inner, "inode": new.stat().st_ino}).encode())
        ledger.remove()
        self._complete_swap()

    def discard(self) -> None:
        """Delete the unfinished work and its ledger."""
        remove_tree(self.work)

    def _complete_swap(self) -> None:
        mark = json.loads(self._mark.read_bytes())
        new = self.staged / mark["inner"]
        if new.is_dir() and new.stat().st_ino == mark["inode"]:  # else the swap is done: renaming keeps inodes
            swap_in(new, self.folder)
        for item in self.work.iterdir():  # the old data and temporary files
            if item.is_dir():
                remove_tree(item)
            elif item != self._mark:
                item.unlink()
        self._mark.unlink()
        self.work.rmdir()

    @property
    def meta_folder(self) -> Path:
        """Folder for the index and the manifest of the unfinished artifact."""
        return self.work / META

    @property
    def _mark(self) -> Path:
        """File that marks the staged data as complete and identifies them."""
        return self.work / "commit.json"


@contextmanager
def read_lock(root: Path) -> Iterator[None]:
    """Lock a volume against writers, but not against other readers. Works on read-only volumes, too.

    Raises:
        StorageError: If a run is writing to the volume.
    """
    try:
        file = (root / WORK / "lock").open()
    except (FileNotFoundError, NotADirectoryError):  # no stage has ever written there
        yield
        return
    with file:
        _flock(file, fcntl.LOCK_SH, "writing to", root)
        yield


def _flock(file: IO[str], operation: int, doing: str, root: Path) -> None:
    """Take a lock. If another process holds it, raise a StorageError that says what it is `doing` with `root`."""
    try:
        fcntl.flock(file, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        name = volume_name(root)
        held = f"the volume {name} ({root})" if name else str(root)
        see = f"docker ps --filter volume={name}" if name else f"fuser -v {root}/{WORK}/lock"
        raise StorageError(
            f"another run is {doing} {held}",
            next_step=f"wait until it has ended, or end it (`{see}` shows it), then run again",
        ) from None


def volume_name(root: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return a container engine's name of the volume mounted at `root`, or "" if it isn't a volume or isn't known.

    Engines keep a volume in .../volumes/<name>/_data, and the kernel lists that path in its table of mounts (proc(5)).
    """
    with suppress(OSError):
        for line in mounts.read_text().splitlines():
            origin, target = line.split(" ", 5)[3:5]
            if target == str(root) and (match := re.fullmatch(r".*/volumes/([^/]+)/_data", origin)):
                return match[1]
    return ""


def swap_in(new: Path, target: Path) -> None:
    """Exchange folder `new` with `target`, atomically where the file system can. The old folder is then at `new`."""
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        old = new.with_name(new.name + ".old")
        target.rename(old)
        new.rename(target)
        old.rename(new)
    _sync_folder(target.parent)


def remove_tree(folder: Path) -> None:
    """Delete a folder with its content.

    shutil.rmtree isn't used: it reads whole listings into memory, which grow with the images, and is recursive.
    """
    pending = [str(folder)]
    while pending:
        subfolders = []
        with os.scandir(pending[-1]) as items:
            for item in items:
                if item.is_dir(follow_symlinks=False):
                    subfolders.append(item.path)
                else:
                    os.unlink(item.path)
        if subfolders:
            pending += subfolders
        else:
            os.rmdir(pending.pop())


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names atomically with renameat2(2), in Linux since 3.15. Return False if it isn't supported."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    fault = ctypes.get_errno()
    if fault in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(fault, os.strerror(fault), str(first))


def _write_durably(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(root: Path) -> None:
    """Flush the file system of `root`, or all file systems if the C library has no syncfs."""
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
    """Start writing a file's cached pages to disk without waiting for it (Linux only; elsewhere do nothing)."""
    start = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if start is not None:
        start(descriptor, ctypes.c_longlong(0), ctypes.c_longlong(0), _SYNC_FILE_RANGE_WRITE)


def require_space(folder: Path, needed: int, what: str) -> None:
    """Check the free space of a file system.

    Args:
        folder: A folder on the file system.
        needed: Required space in bytes.
        what: What needs the space, for the message.

    Raises:
        StorageError: If less space is free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"{what} needs {needed / 1e9:.3f} GB on {folder}, and {free / 1e9:.3f} GB are free",
            next_step="free some space or give the volume a larger disk, then run again",
        )
