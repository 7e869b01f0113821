"""Compile the JPEG kernel: `python -m larder.stream.build [FOLDER]`, or this file by its path.

It needs a C compiler (`cc`, or what CC names) and the headers of libjpeg-turbo 2.1 or newer (Debian, Ubuntu:
libjpeg62-turbo-dev or libjpeg-turbo8-dev). Without the kernel, Pillow does its work, more slowly.

This module imports the standard library alone, since wheels and images are built before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("jpeg_crop.c")
INCLUDED = SOURCE.with_name("jpeg_huffman.h")
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-fPIC")
LINKED = ("-ljpeg", "-lm", *(["-Wl,--exclude-libs,ALL"] if sys.platform == "linux" else []))
"""A libjpeg that is linked statically stays hidden: the process has others, of Pillow and torchvision."""


class BuildError(Exception):
    """The compiler is missing, or failed: then this has what it said."""


def library_name() -> str:
    """Return the file name of the kernel that this source gives: a library of another source is never loaded."""
    return f"libjpeg_crop-{hashlib.sha256(SOURCE.read_bytes() + INCLUDED.read_bytes()).hexdigest()[:12]}.so"


def build(folder: Path, flags: Sequence[str] = ()) -> Path:
    """Compile the kernel into a folder.

    Args:
        folder: Where to put it; is created.
        flags: Further options for the compiler, after larder's own. CFLAGS and LDFLAGS of the environment precede them.

    Returns:
        The library. Older ones in the folder are deleted.

    Raises:
        BuildError: If there is no compiler, or no libjpeg-turbo.
    """
    folder.mkdir(parents=True, exist_ok=True)
    compiler, own, linked = (shlex.split(os.environ.get(name, "")) for name in ("CC", "CFLAGS", "LDFLAGS"))
    library = folder / library_name()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as beside:
        made = Path(beside) / library.name
        command = [*(compiler or ["cc"]), *FLAGS, *own, *flags, "-shared", "-o", str(made), str(SOURCE)]
        _run([*command, *linked, *LINKED])
        os.replace(made, library)  # another process may be loading the old one
    for old in folder.glob("libjpeg_crop-*.so"):
        if old != library:
            old.unlink(missing_ok=True)
    return library


def _run(command: Sequence[str]) -> None:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise BuildError(f"{command[0]} can't be started: {error.strerror}") from error
    if ended.returncode:
        raise BuildError(ended.stderr.strip() or f"{command[0]} ended with {ended.returncode}")


def main() -> int:
    """Compile into the folder that is named, else beside this file. Return 1 if that is impossible."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE.parent
    try:
        print(build(folder))
    except (BuildError, OSError) as error:
        print(f"The JPEG kernel can't be compiled: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
