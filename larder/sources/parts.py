"""The files that a source of several files is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Part(NamedTuple):
    """One file of a source: where it is on this machine, and its name, a path below what was given as the source."""

    path: Path
    name: str
    open: Callable[[], Any] | None = None
    """Opens one that lies elsewhere; picklable."""
