"""Describe the files of a source that consists of several files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class SourcePart(NamedTuple):
    """One file of a source."""

    path: Path
    """Path on this machine."""
    name: str
    """Path relative to the source."""
    open: Callable[[], Any] | None = None
    """Picklable function that opens a remote file."""
