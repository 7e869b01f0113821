"""The arms: one module each, named as on the command line.

An arm defines the measured loader and its arguments. `--help` shows the first line of its docstring. Its `open_loader`
creates the loader from the settings, and releases its resources at the end of the block.
"""

from __future__ import annotations

import ast
import pkgutil
from pathlib import Path


def arm_names() -> list[str]:
    """Return the names of all arms, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def describe_arm(name: str) -> str:
    """Return the first line of an arm's docstring, without its full stop."""
    source = (Path(__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return docstring.partition("\n")[0].rstrip(".")
