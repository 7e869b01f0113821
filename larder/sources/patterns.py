"""Match remote names with patterns: `*` for any characters except slashes, `**` for any characters.

A `?` matches only itself, since it occurs in keys.
"""

from __future__ import annotations

import re

WILD = re.compile(r"\*")

_PARTS = {"**": ".*", "*": "[^/]*"}


def as_pattern(text: str) -> re.Pattern[str]:
    """Return the regular expression that a whole name must match."""
    parts = re.split(r"(\*\*|\*)", text)
    return re.compile("".join(_PARTS.get(part) or re.escape(part) for part in parts), re.DOTALL)


def fixed_folder(text: str) -> str:
    """Return the folder, with its slash, that contains all names that match."""
    fixed = WILD.split(text, maxsplit=1)[0]
    return fixed[: fixed.rfind("/") + 1]
