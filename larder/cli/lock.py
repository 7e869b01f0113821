"""The lock file, uv.lock, which names packages by version and hash and says nowhere where to get them.

    python -m larder.cli.lock           write uv.lock for what pyproject.toml asks; what still fits stays
    python lock.py pin uv.lock uv       print one package as a requirement with hashes, for `pip --require-hashes`

uv writes an address beside each file. Without it a lock serves every mirror: uv takes files without addresses for files
of a folder, so `uv export --frozen` and `uv lock --check` read the lock as they read any other, and pip downloads from
the index that the user has configured. This module needs nothing but Python 3.9: it runs before anything is installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

LOCK = "uv.lock"


def without_addresses(text: str) -> str:
    """The text of a lock, with each file's name in place of its address."""
    text = re.sub(r'\burl = "[^"]*/([^/"]+)"', r'path = "\1"', text)
    text = re.sub(r', upload-time = "[^"]*"', "", text)
    return re.sub(r'\bregistry = "[^"]*"', 'registry = "."', text)


def pin(text: str, name: str) -> str:
    """One package of a lock as a requirement with the hashes of its files.

    Raises:
        KeyError: If the lock holds no such package, or more than one version of it.
    """
    found = [part for part in text.split("[[package]]\n") if part.startswith(f'name = "{name}"\n')]
    if len(found) != 1:
        raise KeyError(f"{LOCK} holds {len(found)} versions of {name}; one was expected")
    version = re.findall(r'^version = "(.+)"$', found[0], re.MULTILINE)[0]
    hashes = re.findall(r'\bhash = "(sha256:[0-9a-f]{64})"', found[0])
    return " \\\n    ".join([f"{name}=={version}", *(f"--hash={digest}" for digest in hashes)]) + "\n"


def renew(root: Path) -> None:
    """Lock what pyproject.toml asks for. Versions that still fit stay."""
    lock = root / LOCK
    subprocess.run([Path(sys.executable).with_name("uv"), "lock", "--directory", root], check=True)
    new = lock.with_name(f"{LOCK}.new")
    new.write_text(without_addresses(lock.read_text(encoding="utf-8")), encoding="utf-8")
    os.replace(new, lock)


if __name__ == "__main__":
    if not sys.argv[1:]:
        renew(Path(__file__).resolve().parents[2])
    elif sys.argv[1:2] == ["pin"] and len(sys.argv) == 4:
        sys.stdout.write(pin(Path(sys.argv[2]).read_text(encoding="utf-8"), sys.argv[3]))
    else:
        sys.exit(__doc__)
