"""Suggest what a user may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: the most similar known one, or nothing if none is similar.

    Example:
        >>> did_you_mean("streem", ["stream", "webdataset"]), did_you_mean("x", ["stream"])
        ('; did you mean stream?', '')
    """
    near = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
