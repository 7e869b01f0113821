"""Placeholder until the lock lands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path


def ensure(root: Path, stages: Iterable[str], environ: Mapping[str, str]) -> None:
    """Install nothing."""
