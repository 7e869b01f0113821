"""The folder of records: made and tried before anything is measured, and nothing in it ever overwritten."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from larder.errors import StorageError, explain_os_error


class Place:
    """The name of a record that is still to be written."""

    def __init__(self, path: Path, beside: Path) -> None:
        self.path = path
        self._beside = beside

    def write(self, record: dict[str, Any]) -> None:
        """Write the record beside its name, then rename it: readers see all of it or nothing."""
        self._beside.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        self._beside.rename(self.path)


@contextmanager
def reserve(folder: Path, stem: str) -> Iterator[Place]:
    """Reserve `<folder>/<stem>.json`, or `<stem>-2.json` and so on where there is one; makes the folder.

    Raises StorageError when the folder can't be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path, beside = _free_name(folder, stem)
    except OSError as error:
        known = explain_os_error(error)
        cause = known.what if known else f"{error.strerror}: {error.filename!r}"
        raise StorageError(
            f"results={str(folder)!r}: records can't be written there: {cause}",
            next_step=f"set `results` to a folder that user {os.getuid()} can write, or make it so",
        ) from error
    try:
        yield Place(path, beside)
    finally:
        beside.unlink(missing_ok=True)


def _free_name(folder: Path, stem: str) -> tuple[Path, Path]:
    for number in itertools.count(1):
        path = folder / (f"{stem}.json" if number == 1 else f"{stem}-{number}.json")
        beside = folder / f".{path.name}.new"
        try:
            beside.open("x").close()
        except FileExistsError:  # another run is about to use this name
            continue
        if not path.exists():  # looked at only now, as nobody else can make it from here on
            return path, beside
        beside.unlink()
    raise AssertionError("unreachable")
