"""Build the documentation site: `python -m docs.site [FOLDER]`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from sphinx.cmd.build import build_main

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".larder" / "site"


def build(folder: Path) -> int:
    """Build the whole site: Sphinx repeats no warning about a page that it doesn't read again.

    Args:
        folder: Where the site will be; what it held is deleted.

    Returns:
        Sphinx's exit code, which isn't 0 if there was a warning.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as cache:
        options = ["-b", "html", "-c", str(Path(__file__).parent), "-d", cache, "--fail-on-warning", "--nitpicky", "-q"]
        code = build_main([*options, str(ROOT), str(folder)])
    if not code:
        shutil.copy(folder / "README.html", folder / "index.html")
    return code


def main() -> int:
    """Build the site, and print where it begins."""
    folder = Path(sys.argv[1]).resolve() if sys.argv[1:] else FOLDER
    code = build(folder)
    if not code:
        print((folder / "index.html").as_uri())
    return code


if __name__ == "__main__":
    sys.exit(main())
