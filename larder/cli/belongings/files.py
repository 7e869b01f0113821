"""What larder has put into the checkout and LARDER_HOME."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from larder.cli import project
from larder.cli.belongings import Thing, note_of
from larder.cli.console import in_units
from larder.cli.inventory import WORK, look
from larder.cli.survey import Survey

_KEYS = ("s3-host.env", "s3-compose.env", "jupyter-token")
_OF_STORE = ("data", "log", "pid", "lock")
_OF_MOUNT = (".rclone.sock", ".mount.json", ".mount.log", ".cache")
_GENERIC = ("cache", "jupyter", "mount")
"""Folders in LARDER_HOME with names that others may use, too: larder's where all that is beside them is."""
_SECONDS = 2.0


class Files:
    """What larder has put into the checkout and LARDER_HOME.

    Args:
        survey: Who looks.
    """

    def __init__(self, survey: Survey) -> None:
        self.root, self.settings, self.environ = survey.root, survey.settings, survey.environ
        self.links: list[str] = []
        self.others: list[str] = []
        """What else lies in LARDER_HOME."""
        self.found = list(self._all())
        self.empty = self._emptied()
        """Folders that are empty once the rest is gone."""

    def things(self) -> list[Thing]:
        """Return all of it."""
        return [Thing("files", str(path), size_of(self.root / path), note) for path, note in self.found]

    def _all(self) -> Iterator[tuple[Path, str]]:
        home = self.settings.home
        if not self._is_link(home):
            self.others = sorted(self._strangers(home))
            yield from self._in_home(home)
        if not self._is_link(self.settings.store_dir):
            yield from self._there(self.settings.store_dir, _OF_STORE, "the store on this machine")
        if self.settings.mount_dir != home / "mount" and not self._is_link(self.settings.mount_dir):
            yield from self._there(self.settings.mount_dir, _OF_MOUNT, "of a mount")
        if (self.root / ".venv" / "pyvenv.cfg").is_file() and not self._is_link(Path(".venv")):
            yield Path(".venv"), "Python packages"
        yield from self._there(Path(), (".venv.lock",), "")
        register = project.register_of(self.environ)
        if register is not None and project.owner_of(self.environ) == self.root.resolve():
            yield register, "this checkout's claim on its project name"

    def _in_home(self, home: Path) -> Iterator[tuple[Path, str]]:
        for path in self._volumes(home):
            yield path, note_of("data", look(self.root / path))
        yield from self._there(home, _KEYS, "secrets")
        if not self.others:
            yield from self._there(home, _GENERIC, "")

    def _volumes(self, home: Path) -> Iterator[Path]:
        """Yield the host runner's volumes: folders with a stage's lock, or empty ones."""
        for name in self._names(home / "volumes"):
            folder = home / "volumes" / name
            if not self._is_link(folder) and _is_volume(self.root / folder):
                yield folder

    def _there(self, folder: Path, names: Sequence[str], note: str) -> Iterator[tuple[Path, str]]:
        for name in names:
            if (self.root / folder / name).exists() and not self._is_link(folder / name):
                yield folder / name, note

    def _strangers(self, home: Path) -> set[str]:
        return set(self._names(home)) - {"volumes", "store", *_KEYS, *_GENERIC}

    def _names(self, folder: Path) -> list[str]:
        path = self.root / folder
        return sorted(os.listdir(path)) if path.is_dir() else []

    def _is_link(self, path: Path) -> bool:
        """Whether a path is a symlink, or leads through one in LARDER_HOME."""
        home = self.settings.home
        inner = [part for part in path.parents if part == home or home in part.parents]
        links = [str(part) for part in (path, *inner) if (self.root / part).is_symlink()]
        self.links += [link for link in links if link not in self.links]
        return bool(links)

    def _emptied(self) -> list[Path]:
        """Return the folders to remove after their contents, inner ones first."""
        gone = {path for path, _ in self.found}
        folders = []
        for folder in (self.settings.home / "volumes", self.settings.store_dir, self.settings.home):
            path = self.root / folder
            if (
                path.is_dir()
                and not self._is_link(folder)
                and all(folder / name in gone for name in self._names(folder))
            ):
                gone.add(folder)
                folders.append(folder)
        register = project.register_of(self.environ)
        if register in gone and register is not None and os.listdir(register.parent) == [register.name]:
            folders.append(register.parent)
        return folders


def _is_volume(folder: Path) -> bool:
    return folder.is_dir() and ((folder / WORK).is_dir() or not any(folder.iterdir()))


def size_of(path: Path, seconds: float = _SECONDS) -> str:
    """Return the size of a file or folder, as people read it; a lower bound where counting takes longer."""
    if not path.is_dir():
        return in_units(path.lstat().st_size)
    end, total, waiting, linked = time.monotonic() + seconds, 0, [str(path)], set()
    while waiting:
        try:
            for item in os.scandir(waiting.pop()):
                found = item.stat(follow_symlinks=False)
                if item.is_dir(follow_symlinks=False):
                    waiting.append(item.path)
                elif found.st_nlink == 1 or found.st_ino not in linked:  # a tree's files are links to raw data
                    linked.add(found.st_ino)
                    total += found.st_size
        except OSError:  # gone, or closed to this user
            continue
        if time.monotonic() > end:
            return f"more than {in_units(total)}"
    return in_units(total)
