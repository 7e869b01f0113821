"""The arms: one module each, named as on the command line.

An arm says which loader is measured, with which arguments. Its docstring opens with one line that `--help` shows; its
`open_feed` makes the loader from the settings, and releases what that holds when the block ends.
"""

from __future__ import annotations

import ast
import pkgutil
from pathlib import Path


def names() -> list[str]:
    """The arms there are, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def about(name: str) -> str:
    """The first line of an arm's docstring, without its full stop."""
    source = (Path(__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return docstring.partition("\n")[0].rstrip(".")
