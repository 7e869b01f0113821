"""What was given to make on its command line, as it was typed.

Make expands `$(...)` in the variables that it exports. The Makefile exports none of them. MAKEFLAGS holds them as they
are: `n -- NAME=value OTHER=...`, with a backslash before blanks and backslashes, and with `$$` for `$` (GNU make's
manual, "Communicating Options to a Sub-make"). Blanks at a value's beginning are lost: make drops them.
"""

from __future__ import annotations

import re


def overrides(makeflags: str) -> dict[str, str]:
    """Return the variables that make was given.

    Example:
        >>> overrides(r"n -- LARDER_SOURCE=my\\ photos.zip")
        {'LARDER_SOURCE': 'my photos.zip'}
    """
    found: dict[str, str] = {}
    for word in re.findall(r"(?:\\.|[^ \t\\])+", f" {makeflags}".partition(" -- ")[2], re.DOTALL):
        name, equals, value = re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL).replace("$$", "$").partition("=")
        if equals:
            found[name.rstrip(":+?!")] = value
    return found
