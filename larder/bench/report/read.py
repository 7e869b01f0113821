"""Read the record of a comparison with the standard library alone, and check it against its schema."""

from __future__ import annotations

import hashlib
import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from larder.bench.report.schema import find_faults
from larder.errors import InputError

SCHEMA = "larder-comparison/1"
SCHEMA_FILE = Path(__file__).parents[1] / "comparison-1.schema.json"
MAX_BYTES = 64 << 20
"""Longest record that is read: a hundred times one of eight arms with three numbers of workers."""
_SHOWN_FAULTS = 5


class RecordFile(NamedTuple):
    """A record and where it comes from."""

    name: str
    """Name of the file."""
    sha256: str
    """Digest of the file."""
    content: dict[str, Any]
    """The record."""


def read_record(path: Path) -> RecordFile:
    """Read and check the record of a comparison.

    Raises:
        InputError: If the file can't be read, isn't such a record, or is one of another version.
    """
    data = _read_bytes(path)
    try:
        content = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} isn't JSON: {error}", next_step="give the record of a comparison, compare-<time>.json"
        ) from None
    version = content.get("schema") if isinstance(content, dict) else None
    if version != SCHEMA:
        raise InputError(
            f"{path} isn't a record of the form {SCHEMA}: its `schema` is {str(version)[:80]!r}",
            next_step="give the record of a comparison, and use the version of larder that wrote it",
        )
    schema = _load_schema()
    faults = list(itertools.islice(find_faults(content, schema, schema), _SHOWN_FAULTS))
    if faults:
        raise InputError(
            f"{path} isn't a valid record of a comparison: {'; '.join(faults)}", next_step="run the comparison again"
        )
    return RecordFile(path.name, hashlib.sha256(data).hexdigest(), content)


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{path} can't be read: {error.strerror}", next_step="give the record of a comparison, compare-<time>.json"
        ) from error
    if len(data) > MAX_BYTES:
        raise InputError(
            f"{path} is longer than {MAX_BYTES >> 20} MiB", next_step="give a record of fewer arms or rounds"
        )
    return data


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


@cache
def _load_schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return schema
