"""Escape text for terminals and logs.

File names and messages of servers are untrusted: they may move the cursor, hide or reverse text, or fake a line of
larder's output. So each printed line goes through `escape`. This module needs only Python 3.9 and the standard
library.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

MAX_LINE_LENGTH = 5000
"""Maximum number of characters in a line; the rest is cut off. A path has at most 4096."""

_PAIR_OR_LONE_SURROGATE = re.compile(
    r"(\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})|\\(ud[89a-f][0-9a-f]{2})", re.ASCII
)


class Lines(str):
    """Text of escaped lines, made by `join_lines`. `escape` doesn't change it."""

    __slots__ = ()

    def map(self, change: Callable[[str], str]) -> Lines:
        """Return the text with `change` applied to each line."""
        return join_lines(*(change(line) for line in self.split("\n")))


def join_lines(*texts: str) -> Lines:
    """Escape each of `texts` and join them with line breaks."""
    return Lines("\n".join(escape(text) for text in texts))


def escape(text: str) -> str:
    r"""Return `text` as one line of printable characters; return `Lines` unchanged.

    Control characters, line and paragraph separators, marks of text direction, invisible characters, unusual spaces
    and lone surrogates become Python's escapes. The function is idempotent.

    Example:
        >>> escape("a\nerror: b\x1b[2J")
        'a\\nerror: b\\x1b[2J'
    """
    if isinstance(text, Lines):
        return text
    if len(text) > MAX_LINE_LENGTH:
        text = text[: MAX_LINE_LENGTH - 1] + "…"
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def print_escaped(*texts: str, file: TextIO | None = None) -> None:
    """Print `texts` as escaped lines to `file`, by default stdout. Escape characters that its encoding lacks, too."""
    stream = sys.stdout if file is None else file
    if stream is None:  # closed before this process started
        return
    text = "".join(f"{escape(text)}\n" for text in texts)
    if not text.isascii():
        encoding = getattr(stream, "encoding", None) or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    stream.write(text)
    stream.flush()


def as_json(fields: Mapping[str, Any], indent: int | None = None) -> str:
    """Return `fields` as JSON in printable ASCII. Only lone surrogates in values are escaped."""
    import json  # imported here to keep the command's start fast

    text = json.dumps(fields, indent=indent).replace("\x7f", "\\u007f")
    return _PAIR_OR_LONE_SURROGATE.sub(lambda match: match[1] or rf"\\{match[2]}", text)
