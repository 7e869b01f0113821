"""Names a compose project for each checkout of a machine: the first is `larder`, others get a digest of their path."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

PLAIN = "larder"


def name_of(root: Path, environ: Mapping[str, str]) -> str:
    """Return the checkout's project, and claim the plain name for it if that is free.

    The claim stands in `$XDG_STATE_HOME/larder/checkouts.json`. It ends with the checkout it names. Where that file
    can't be read or written, the name is the plain one.
    """
    root = root.resolve()
    register = register_of(environ)
    if register is None:
        return PLAIN
    try:
        register.parent.mkdir(parents=True, exist_ok=True)
        with register.open("a+", encoding="utf-8", errors="surrogateescape") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            owner = _owner(file.read())
            if owner is not None and owner != root and is_checkout(owner):
                return f"{PLAIN}-{digest_of(root)}"
            if owner != root:
                file.truncate(0)
                file.write(json.dumps({PLAIN: str(root)}) + "\n")
    except OSError:
        return PLAIN
    return PLAIN


def look(root: Path, environ: Mapping[str, str]) -> str:
    """Return the checkout's project, and claim nothing."""
    owner = owner_of(environ)
    mine = owner is None or owner == root.resolve() or not is_checkout(owner)
    return PLAIN if mine else f"{PLAIN}-{digest_of(root.resolve())}"


def is_name(text: str) -> bool:
    """Whether this is the name of some checkout's project."""
    return re.fullmatch(rf"{PLAIN}(-[0-9a-f]{{8}})?", text) is not None


def owner_of(environ: Mapping[str, str]) -> Path | None:
    """Return the checkout that has claimed the plain name; None where none has."""
    register = register_of(environ)
    try:
        return _owner(register.read_text()) if register else None
    except OSError:
        return None


def digest_of(root: Path) -> str:
    """Return what tells this checkout from others."""
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:8]


def register_of(environ: Mapping[str, str]) -> Path | None:
    """Return the file with the claim; None where there is no place for it."""
    state = environ.get("XDG_STATE_HOME") or (environ.get("HOME", "") and f"{environ['HOME']}/.local/state")
    return Path(state) / "larder" / "checkouts.json" if state else None


def _owner(text: str) -> Path | None:
    try:
        return Path(json.loads(text)[PLAIN])
    except (ValueError, KeyError, TypeError):  # a new file, or one that somebody else has written
        return None


def is_checkout(folder: Path) -> bool:
    """Whether a folder is a checkout of larder."""
    return (folder / "compose" / "stage.yaml").is_file()
