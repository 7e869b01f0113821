"""Write the lock file, uv.lock, which has the version and hashes of each package, but no download addresses.

    python -m larder.cli.lock           lock the requirements of pyproject.toml; keep versions that still fit
    python lock.py pin uv.lock uv       print one package as a requirement with hashes, for `pip --require-hashes`

uv writes an address beside each file. Without addresses, a lock works with every mirror: pip downloads from the index
that the user has configured. uv takes files without addresses for local files, so `uv export --frozen` and
`uv lock --check` still read the lock. This module needs only Python 3.9: it runs before anything is installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

LOCK = "uv.lock"


def without_addresses(text: str) -> str:
    """Return the text of a lock with file names instead of addresses."""
    text = re.sub(r'\burl = "[^"]*/([^/"]+)"', r'path = "\1"', text)
    text = re.sub(r', upload-time = "[^"]*"', "", text)
    return re.sub(r'\bregistry = "[^"]*"', 'registry = "."', text)


def pin(text: str, name: str) -> str:
    """Return one package of a lock as a requirement with the hashes of its files.

    Raises:
        KeyError: If the lock doesn't contain exactly one version of the package.
    """
    packages = [part for part in text.split("[[package]]\n") if part.startswith(f'name = "{name}"\n')]
    if len(packages) != 1:
        raise KeyError(f"{LOCK} has {len(packages)} versions of {name}, expected one")
    version = re.findall(r'^version = "(.+)"$', packages[0], re.MULTILINE)[0]
    hashes = re.findall(r'\bhash = "(sha256:[0-9a-f]{64})"', packages[0])
    return " \\\n    ".join([f"{name}=={version}", *(f"--hash={digest}" for digest in hashes)]) + "\n"


def renew(root: Path) -> None:
    """Lock the requirements of pyproject.toml. Versions that still fit stay."""
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
