"""Store records in a folder: check that it is writable before measuring, and never overwrite a record."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from larder.errors import StorageError, explain_os_error


class RecordFile:
    """A reserved name for a record."""

    def __init__(self, path: Path, temporary: Path) -> None:
        self.path = path
        self._temporary = temporary

    def write(self, record: dict[str, Any]) -> None:
        """Write the record to a temporary file and rename it, so that readers never see a partial record."""
        self._temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        self._temporary.rename(self.path)


@contextmanager
def reserve(folder: Path, stem: str) -> Iterator[RecordFile]:
    """Reserve `<folder>/<stem>.json`, or `<stem>-2.json` and so on if it exists. Create the folder if necessary.

    Raises:
        StorageError: If the folder can't be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path, temporary = _free_name(folder, stem)
    except OSError as error:
        known = explain_os_error(error)
        cause = known.what if known else f"{error.strerror}: {error.filename!r}"
        raise StorageError(
            f"results={str(folder)!r}: records can't be written there: {cause}",
            next_step=f"set `results` to a folder that user {os.getuid()} can write, or give that user access",
        ) from error
    try:
        yield RecordFile(path, temporary)
    finally:
        temporary.unlink(missing_ok=True)


def _free_name(folder: Path, stem: str) -> tuple[Path, Path]:
    for number in itertools.count(1):
        path = folder / (f"{stem}.json" if number == 1 else f"{stem}-{number}.json")
        temporary = folder / f".{path.name}.new"
        try:
            temporary.open("x").close()
        except FileExistsError:  # another run has reserved this name
            continue
        if not path.exists():  # checked after the reservation, so that no other run can create it in between
            return path, temporary
        temporary.unlink()
    raise AssertionError("unreachable")
