"""Name a compose project for each checkout of a machine: the first is `larder`, others get a digest of their path."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

DEFAULT_PROJECT = "larder"


def claim_project_name(root: Path, environ: Mapping[str, str], running: Collection[Path] = ()) -> str:
    """Return the checkout's project, and claim the plain name for it if that is free.

    The claim is in `$XDG_STATE_HOME/larder/checkouts.json`, and is valid as long as the checkout exists. If that file
    can't be read or written, the plain name is used.

    Args:
        root: The checkout.
        environ: The environment.
        running: The checkouts that have servers in the plain project. This covers other users, whose claims are in
            their own home folders.
    """
    root = root.resolve()
    checkouts = [folder for folder in running if folder != root and is_checkout(folder)]
    if checkouts and root not in running:
        _claim(checkouts[0], environ, overwrite=True)
        return f"{DEFAULT_PROJECT}-{hash_path(root)}"
    return _claim(root, environ)


def _claim(root: Path, environ: Mapping[str, str], overwrite: bool = False) -> str:
    """Return the project of a checkout. Claim the plain name if no other checkout has it, or if `overwrite`."""
    claims_file = find_claims_file(environ)
    if claims_file is None:
        return DEFAULT_PROJECT
    try:
        claims_file.parent.mkdir(parents=True, exist_ok=True)
        with claims_file.open("a+", encoding="utf-8", errors="surrogateescape") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            owner = _owner(file.read())
            if not overwrite and owner is not None and owner != root and is_checkout(owner):
                return f"{DEFAULT_PROJECT}-{hash_path(root)}"
            if owner != root:
                file.truncate(0)
                file.write(json.dumps({DEFAULT_PROJECT: str(root)}) + "\n")
    except OSError:
        return DEFAULT_PROJECT
    return DEFAULT_PROJECT


def find_project_name(root: Path, environ: Mapping[str, str]) -> str:
    """Return the checkout's project without claiming a name."""
    owner = owner_of(environ)
    has_plain_name = owner is None or owner == root.resolve() or not is_checkout(owner)
    return DEFAULT_PROJECT if has_plain_name else f"{DEFAULT_PROJECT}-{hash_path(root.resolve())}"


def is_name(text: str) -> bool:
    """Return whether a text is the name of a checkout's project."""
    return re.fullmatch(rf"{DEFAULT_PROJECT}(-[0-9a-f]{{8}})?", text) is not None


def owner_of(environ: Mapping[str, str]) -> Path | None:
    """Return the checkout that has claimed the plain name, or None."""
    claims_file = find_claims_file(environ)
    try:
        return _owner(claims_file.read_text()) if claims_file else None
    except OSError:
        return None


def hash_path(root: Path) -> str:
    """Return a short digest of a checkout's path."""
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:8]


def find_claims_file(environ: Mapping[str, str]) -> Path | None:
    """Return the file with the claim, or None if there is no folder for it."""
    state = environ.get("XDG_STATE_HOME") or (environ.get("HOME", "") and f"{environ['HOME']}/.local/state")
    return Path(state) / "larder" / "checkouts.json" if state else None


def _owner(text: str) -> Path | None:
    try:
        return Path(json.loads(text)[DEFAULT_PROJECT])
    except (ValueError, KeyError, TypeError):  # a new file, or one that larder didn't write
        return None


def is_checkout(folder: Path) -> bool:
    """Return whether a folder is a checkout of larder. One that isn't accessible counts as a checkout."""
    try:
        (folder / "compose" / "stage.yaml").stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True
