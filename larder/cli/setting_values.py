"""Check the value of one setting."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence

from larder.cli.setting_specs import SettingSpec
from larder.suggest import did_you_mean

_BOUNDS = {
    "ge": (operator.ge, "must be {} or more"),
    "gt": (operator.gt, "must be more than {}"),
    "le": (operator.le, "must be {} or less"),
    "lt": (operator.lt, "must be less than {}"),
}


def printable(text: str) -> str:
    """Escape foreign text for terminals, and cut it to 200 characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:200])


def is_port(text: str) -> bool:
    """Return whether `text` is a TCP port."""
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and 0 < int(text) < 65536


def unknown_choice(name: str, value: str, choices: Sequence[str]) -> str:
    """Return why a value isn't one of `choices`, or ""."""
    if not value or not choices or value in choices:
        return ""
    meant = did_you_mean(value, choices) or f": it must be {', '.join(choices[:-1])} or {choices[-1]}"
    return f"{name}={printable(value)} is unknown{meant}"


def wrong_number(value: str, setting: SettingSpec) -> str:
    """Return why a stage would refuse a value, or "". The stage itself would report it only after its build."""
    if not setting.type:
        return ""
    if setting.type == "ByteSize":
        size = re.fullmatch(r"\s*[0-9_]*\.?[0-9_]+\s*([kmgtpe]i?b?|b)?\s*", value, re.IGNORECASE)
        return "" if size else "must be a number of bytes, such as 64MiB"  # the stage itself checks the bounds
    try:
        number = float(value)
    except ValueError:
        return "must be a whole number" if setting.type == "int" else "must be a number"
    for name, bound in setting.bounds.items():
        fits, words = _BOUNDS[name]
        if not fits(number, bound):
            return words.format(bound)
    return ""
