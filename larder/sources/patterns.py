"""Patterns of remote names: `*` for any characters but slashes, `**` for any. A `?` is one, as in many a key."""

from __future__ import annotations

import re

WILD = re.compile(r"\*")

_PARTS = {"**": ".*", "*": "[^/]*"}


def as_pattern(text: str) -> re.Pattern[str]:
    """The expression that a name must match as a whole."""
    parts = re.split(r"(\*\*|\*)", text)
    return re.compile("".join(_PARTS.get(part) or re.escape(part) for part in parts), re.DOTALL)


def fixed_folder(text: str) -> str:
    """The folder, with its slash, below which everything that matches lies."""
    fixed = WILD.split(text, maxsplit=1)[0]
    return fixed[: fixed.rfind("/") + 1]
