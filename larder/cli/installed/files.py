"""Find what larder has created in the checkout and in LARDER_HOME."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from larder.cli import project
from larder.cli.console import format_bytes
from larder.cli.inspector import CheckoutInspector
from larder.cli.installed import ONLY_COPY, InstalledItem, describe_volume
from larder.cli.inventory import WORK, find_generated, read_volume
from larder.cli.setting_specs import PYTHONS

_KEYS = ("s3-host.env", "s3-compose.env", "jupyter-token")
_STORE_FILES = ("link", "log", "pid", "lock")
_MOUNT_FILES = (".rclone.sock", ".mount.json", ".mount.log", ".cache")
_COMMON_NAMES = ("cache", "jupyter", "mount", "site")
"""Folders in LARDER_HOME with common names. They count as larder's only if everything beside them is larder's."""
CLOUD_FOLDER = "provision"
_TIMEOUT_SECONDS = 2.0


class FileItems:
    """Files that larder has created in the checkout and in LARDER_HOME.

    Args:
        inspector: The inspector of this machine.
    """

    def __init__(self, inspector: CheckoutInspector) -> None:
        self.root, self.settings, self.environ = inspector.root, inspector.settings, inspector.environ
        self.links: list[str] = []
        self.foreign_names: list[str] = []
        """Other names in LARDER_HOME."""
        self.items = list(self._find_items())
        self.emptied_folders = self._find_emptied_folders()
        """Folders that are empty after everything else is removed."""

    def list_items(self) -> list[InstalledItem]:
        """Return everything found."""
        return [InstalledItem("files", str(path), measure_size(self.root / path), note) for path, note in self.items]

    def _find_items(self) -> Iterator[tuple[Path, str]]:
        home = self.settings.home
        if not self._is_link(home):
            self.foreign_names = sorted(self._find_foreign_names(home))
            yield from self._find_in_home(home)
        if not self._is_link(self.settings.store_dir):
            yield from self._existing(self.settings.store_dir, ("data",), f"the store on this machine; {ONLY_COPY}")
            yield from self._existing(self.settings.store_dir, _STORE_FILES, "of the store on this machine")
        if self.settings.mount_dir != home / "mount" and not self._is_link(self.settings.mount_dir):
            yield from self._existing(self.settings.mount_dir, _MOUNT_FILES, "of a mount")
        for name in (".venv", *(f".venv-{version}" for version in PYTHONS)):
            if (self.root / name / "pyvenv.cfg").is_file() and not self._is_link(Path(name)):
                yield Path(name), "Python packages"
        yield from self._existing(Path(), (".venv.lock",), "")
        claims_file, claims = project.find_claims_file(self.environ), project.read_claims(self.environ)
        others = [path for path in claims.values() if path != self.root.resolve() and project.is_checkout(path)]
        if claims_file is not None and claims and not others:
            yield claims_file, "the project names of checkouts"

    def _find_in_home(self, home: Path) -> Iterator[tuple[Path, str]]:
        volumes = {path: read_volume(self.root / path) for path in self._volumes(home)}
        generated = find_generated(volumes.values())
        for path, contents in volumes.items():
            yield path, describe_volume("data", contents, generated)
        yield from self._existing(home, _KEYS, "secrets")
        if self.cloud_folder is None:
            yield from self._existing(home, (CLOUD_FOLDER,), "")
        if not self.foreign_names:
            yield from self._existing(home, _COMMON_NAMES, "")

    def _volumes(self, home: Path) -> Iterator[Path]:
        """Yield the host runner's volumes: folders with a stage's lock, or empty ones."""
        for name in self._names(home / "volumes"):
            folder = home / "volumes" / name
            if not self._is_link(folder) and _is_volume(self.root / folder):
                yield folder

    def _existing(self, folder: Path, names: Sequence[str], note: str) -> Iterator[tuple[Path, str]]:
        for name in names:
            if (self.root / folder / name).exists() and not self._is_link(folder / name):
                yield folder / name, note

    def _find_foreign_names(self, home: Path) -> set[str]:
        return set(self._names(home)) - {"volumes", "store", CLOUD_FOLDER, *_KEYS, *_COMMON_NAMES}

    @property
    def cloud_folder(self) -> Path | None:
        """The folder with what `provision` knows of resources in a cloud, which stays; None if there is none."""
        folder = self.settings.home / CLOUD_FOLDER
        files = (path for path in (self.root / folder).rglob("*") if path.is_file())
        return folder if any(path.name != "lock" for path in files) else None

    def _names(self, folder: Path) -> list[str]:
        path = self.root / folder
        return sorted(os.listdir(path)) if path.is_dir() else []

    def _is_link(self, path: Path) -> bool:
        """Return whether a path is a symlink or leads through one in LARDER_HOME."""
        home = self.settings.home
        inner = [part for part in path.parents if part == home or home in part.parents]
        links = [str(part) for part in (path, *inner) if (self.root / part).is_symlink()]
        self.links += [link for link in links if link not in self.links]
        return bool(links)

    def _find_emptied_folders(self) -> list[Path]:
        """Return the folders to remove after their contents, inner ones first."""
        removed = {path for path, _ in self.items}
        folders = []
        for folder in (self.settings.home / "volumes", self.settings.store_dir, self.settings.home):
            path = self.root / folder
            if (
                path.is_dir()
                and not self._is_link(folder)
                and all(folder / name in removed for name in self._names(folder))
            ):
                removed.add(folder)
                folders.append(folder)
        claims_file = project.find_claims_file(self.environ)
        if claims_file in removed and claims_file is not None and os.listdir(claims_file.parent) == [claims_file.name]:
            folders.append(claims_file.parent)
        return folders


def _is_volume(folder: Path) -> bool:
    return folder.is_dir() and ((folder / WORK).is_dir() or not any(folder.iterdir()))


def measure_size(path: Path, seconds: float = _TIMEOUT_SECONDS) -> str:
    """Return the formatted size of a file or folder; a lower bound if counting takes longer than `seconds`."""
    if not path.is_dir():
        return format_bytes(path.lstat().st_size)
    end, total, waiting, linked = time.monotonic() + seconds, 0, [str(path)], set()
    while waiting:
        try:
            for item in os.scandir(waiting.pop()):
                status = item.stat(follow_symlinks=False)
                if item.is_dir(follow_symlinks=False):
                    waiting.append(item.path)
                elif status.st_nlink == 1 or status.st_ino not in linked:  # a tree's files are hard links to raw data
                    linked.add(status.st_ino)
                    total += status.st_size
        except OSError:  # deleted meanwhile, or not accessible
            continue
        if time.monotonic() > end:
            return f"more than {format_bytes(total)}"
    return format_bytes(total)
