"""Recover the variables of make's command line exactly as they were typed.

Make expands `$(...)` in the variables that it exports, so the Makefile exports none. MAKEFLAGS has them unexpanded:
`n -- NAME=value OTHER=...`, with a backslash before blanks and backslashes, and with `$$` for `$` (GNU make's manual,
"Communicating Options to a Sub-make"). Make drops blanks at the beginning of a value.
"""

from __future__ import annotations

import re


def parse_makeflags(makeflags: str) -> dict[str, str]:
    r"""Return the variables that make was given.

    Example:
        >>> parse_makeflags(r"n -- LARDER_SOURCE=my\ photos.zip")
        {'LARDER_SOURCE': 'my photos.zip'}
    """
    variables: dict[str, str] = {}
    for word in re.findall(r"(?:\\.|[^ \t\\])+", f" {makeflags}".partition(" -- ")[2], re.DOTALL):
        name, equals, value = re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL).replace("$$", "$").partition("=")
        if equals:
            variables[name.rstrip(":+?!")] = value
    return variables
