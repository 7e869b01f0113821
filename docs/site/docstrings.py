"""Turn larder's docstrings into reStructuredText.

Indented text in them is code, a table or a drawing, and is shown as it is. Napoleon, which turns their sections into
lists, would make quotations of it.
"""

from __future__ import annotations

import ast
from textwrap import dedent

from sphinx.application import Sphinx

SECTIONS = ("Args", "Attributes", "Example", "Raises", "Returns", "Yields")
INDENT = "    "
_BEFORE_NAPOLEON = 400


def setup(app: Sphinx) -> None:
    """Register the extension."""
    app.connect("autodoc-process-docstring", _convert, priority=_BEFORE_NAPOLEON)


def _convert(_: Sphinx, kind: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    lines[:] = to_restructured_text(lines)


def to_restructured_text(lines: list[str]) -> list[str]:
    """Return a docstring whose indented text is marked as code. Sections other than examples stay as they are.

    Args:
        lines: The docstring's lines, without the indentation that all of them share.
    """
    found: list[str] = []
    section, at = "", 0
    while at < len(lines):
        line = lines[at]
        if line and not line.startswith(" "):
            section = line.removesuffix(":") if line.removesuffix(":") in SECTIONS else ""
        if not line.startswith(INDENT) or section not in ("", "Example"):
            found.append(line)
            at += 1
            continue
        end = _end_of_block(lines, at)
        found += _as_code(lines[at:end], INDENT if section else "")
        at = end
    return found


def _end_of_block(lines: list[str], start: int) -> int:
    """Return the number of the first line after an indented block, whose last line isn't empty."""
    end = start
    for number in range(start, len(lines)):
        if lines[number].startswith(INDENT):
            end = number + 1
        elif lines[number].strip():
            break
    return end


def _as_code(block: list[str], indent: str) -> list[str]:
    text = dedent("\n".join(block))
    if text.startswith(">>>"):
        return block
    return [
        "",
        f"{indent}.. code-block:: {_language_of(text)}",
        "",
        *(f"{indent}{INDENT}{line}".rstrip() for line in text.split("\n")),
    ]


def _language_of(text: str) -> str:
    try:
        ast.parse(text)
    except SyntaxError:
        return "text"
    return "python"
