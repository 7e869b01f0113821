"""Find the local files and folders that LARDER_SOURCE names."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from larder.cli.setting_values import printable
from larder.cli.settings import ResolvedSettings
from larder.errors import InputError
from larder.source_names import split_sources


def find_local_source(settings: ResolvedSettings) -> Path | None:
    """Return the local archive or folder if it is the only source, else None."""
    source = settings.get("LARDER_SOURCE")
    if not source or source == "sample" or "://" in source:
        return None
    path = settings.root / os.path.expanduser(source)
    try:
        return path.resolve() if path.exists() else None
    except (OSError, ValueError):
        return None


def require_local_sources(settings: ResolvedSettings) -> None:
    """Raise InputError for a missing file, folder or pattern, since extract would report it only after its build."""
    if not settings.get("LARDER_SOURCE"):
        return
    try:
        listed = split_sources(settings.get("LARDER_SOURCE"))
    except ValueError:
        return  # extract reports the error
    missing = [
        source for source in listed if "://" not in source and source != "sample" and not _exists(settings, source)
    ]
    if missing:
        raise InputError(
            f"{printable(missing[0])} does not exist",
            next_step="set LARDER_SOURCE to a URL, a file, a folder, or `sample`",
        )


def _exists(settings: ResolvedSettings, source: str) -> bool:
    path = settings.root / os.path.expanduser(source)
    try:
        return path.exists() or any(glob.iglob(str(path), recursive=True))
    except (OSError, ValueError):
        return False
