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

    `$XDG_STATE_HOME/larder/checkouts.json` has the checkout of each project. A claim is valid as long as the checkout
    exists. If the file can't be read or written, the plain name is used.

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
            claims = _parse(file.read())
            owner = claims.get(DEFAULT_PROJECT, root)
            is_free = overwrite or owner == root or not is_checkout(owner)
            name = DEFAULT_PROJECT if is_free else hashed_name(root)
            if claims.get(name) != root:
                file.truncate(0)
                file.write(json.dumps({project: str(path) for project, path in {**claims, name: root}.items()}) + "\n")
    except OSError:
        return DEFAULT_PROJECT
    return name


def forget(root: Path, environ: Mapping[str, str]) -> None:
    """Remove the claims of a checkout from the file."""
    claims_file = find_claims_file(environ)
    if claims_file is None or not claims_file.exists():
        return
    with claims_file.open("r+", encoding="utf-8", errors="surrogateescape") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        claims = {name: str(path) for name, path in _parse(file.read()).items() if path != root.resolve()}
        file.seek(0)
        file.truncate(0)
        file.write(json.dumps(claims) + "\n")


def find_project_name(root: Path, environ: Mapping[str, str]) -> str:
    """Return the checkout's project without claiming a name."""
    owner = owner_of(environ)
    has_plain_name = owner is None or owner == root.resolve() or not is_checkout(owner)
    return DEFAULT_PROJECT if has_plain_name else hashed_name(root.resolve())


def hashed_name(root: Path) -> str:
    """Return the project of a checkout that doesn't have the plain name."""
    return f"{DEFAULT_PROJECT}-{hash_path(root)}"


def is_name(text: str) -> bool:
    """Return whether a text is the name of a checkout's project."""
    return re.fullmatch(rf"{DEFAULT_PROJECT}(-[0-9a-f]{{8}})?", text) is not None


def owner_of(environ: Mapping[str, str]) -> Path | None:
    """Return the checkout that has claimed the plain name, or None."""
    return read_claims(environ).get(DEFAULT_PROJECT)


def read_claims(environ: Mapping[str, str]) -> dict[str, Path]:
    """Return the checkout of each project, which may be gone."""
    claims_file = find_claims_file(environ)
    try:
        return _parse(claims_file.read_text("utf-8", "surrogateescape")) if claims_file else {}
    except OSError:
        return {}


def hash_path(root: Path) -> str:
    """Return a short digest of a checkout's path."""
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:8]


def find_claims_file(environ: Mapping[str, str]) -> Path | None:
    """Return the file with the claim, or None if there is no folder for it."""
    state = environ.get("XDG_STATE_HOME") or (environ.get("HOME", "") and f"{environ['HOME']}/.local/state")
    return Path(state) / "larder" / "checkouts.json" if state else None


def _parse(text: str) -> dict[str, Path]:
    try:
        claims = json.loads(text)
    except ValueError:  # a new file, or one that larder didn't write
        return {}
    items = claims.items() if isinstance(claims, dict) else ()
    return {name: Path(path) for name, path in items if is_name(name) and isinstance(path, str)}


def is_checkout(folder: Path) -> bool:
    """Return whether a folder is a checkout of larder. One that isn't accessible counts as a checkout."""
    try:
        (folder / "compose" / "stage.yaml").stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True
