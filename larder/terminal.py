"""Text for people and logs. File names, servers' words and stores' messages are foreign: they are escaped here.

A raw file name may move the cursor, hide or reverse text, or start a line that looks like one of ours. So each line
that is printed goes through `escaped`. This module runs on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

LONGEST = 5000
"""Characters of one line; the rest is cut off. A path has at most 4096."""

_PAIR_OR_LONE_SURROGATE = re.compile(
    r"(\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})|\\(ud[89a-f][0-9a-f]{2})", re.ASCII
)


class Lines(str):
    """Text whose line breaks are ours, and whose lines are escaped: what `lines` returns. Otherwise a str."""

    __slots__ = ()

    def map(self, change: Callable[[str], str]) -> Lines:
        """Return the text with `change` applied to each line."""
        return lines(*(change(line) for line in self.split("\n")))


def lines(*texts: str) -> Lines:
    """Return `texts` as lines of one text, each escaped. Line breaks elsewhere are foreign."""
    return Lines("\n".join(escaped(text) for text in texts))


def escaped(text: str) -> str:
    r"""Return `text` as one line of printable characters; as it is where it is `Lines`.

    Control characters, line and paragraph separators, marks of text direction, invisible characters, unusual spaces
    and lone surrogates become Python's escapes. Applying it twice changes nothing.

    >>> escaped("a\nerror: b\x1b[2J")
    'a\\nerror: b\\x1b[2J'
    """
    if isinstance(text, Lines):
        return text
    if len(text) > LONGEST:
        text = text[: LONGEST - 1] + "…"
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def say(*texts: str, file: TextIO | None = None) -> None:
    """Print `texts` as `lines` to `file`, which is stdout by default. What its encoding lacks is escaped, too."""
    stream = sys.stdout if file is None else file
    if stream is None:  # closed before this process began
        return
    text = "".join(f"{escaped(text)}\n" for text in texts)
    if not text.isascii():
        encoding = getattr(stream, "encoding", None) or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    stream.write(text)
    stream.flush()


def as_json(fields: Mapping[str, Any], indent: int | None = None) -> str:
    """Return `fields` as JSON in printable ASCII. Only lone surrogates in values are escaped."""
    import json  # here, since the command starts without it

    text = json.dumps(fields, indent=indent).replace("\x7f", "\\u007f")
    return _PAIR_OR_LONE_SURROGATE.sub(lambda found: found[1] or rf"\\{found[2]}", text)
