"""The difference between a resource and its declaration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """One value that isn't as declared."""

    what: str
    """The key in the declaration, or what it stands for: flavor, rule, gib."""
    old: str
    """The present value; empty if there is none."""
    new: str
    """The declared value; empty if it will be removed."""
    text: str = ""

    def __str__(self) -> str:
        return self.text or f"its {self.what} is {self.old or 'missing'}, not {self.new or 'declared'}"
