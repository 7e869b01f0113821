"""Render texts, tables and lists as HTML. All text is escaped here."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Sequence

from larder.bench.report.facts import shorten
from larder.bench.report.tables import Table
from larder.terminal import escape

MAX_TEXT = 300
"""Characters of a text that the page shows; the embedded record has all of them."""
MAX_LONG_TEXT = 3000
"""The same for descriptions and cells that list a figure for each round."""
MAX_ITEMS = 100
"""Items of a list that are shown."""


def escape_html(text: str) -> str:
    r"""Return a text for HTML. Control characters and marks of direction become visible escapes.

    Example:
        >>> escape_html("</script>\u202e&")
        '&lt;/script&gt;\\u202e&amp;'
    """
    return html.escape(escape(shorten(text, MAX_TEXT)), quote=True)


def long_text(text: str) -> str:
    """Return a text of several sentences for HTML."""
    return html.escape(escape(shorten(text, MAX_LONG_TEXT)), quote=True)


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph."""
    return f'<p class="{kind}">{long_text(text)}</p>' if kind else f"<p>{long_text(text)}</p>"


def items(texts: Sequence[str]) -> str:
    """Return a list."""
    more = [f"and {len(texts) - MAX_ITEMS:,} more"] if len(texts) > MAX_ITEMS else []
    return f"<ul>{''.join(f'<li>{escape_html(text)}</li>' for text in [*texts[:MAX_ITEMS], *more])}</ul>"


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of names with their values."""
    shown = itertools.islice(pairs, MAX_ITEMS)
    rows = (f"<div><dt>{escape_html(name)}</dt><dd>{escape_html(value)}</dd></div>" for name, value in shown)
    return f"<dl>{''.join(rows)}</dl>"


def commands(lines: Sequence[str]) -> str:
    """Return lines of shell. A narrow page scrolls them."""
    shown = "\n".join(escape_html(line) for line in lines)
    return f'<pre tabindex="0"><code>{shown}</code></pre>'


def table(content: Table) -> str:
    """Return a table. A narrow page scrolls it within its own box, which the keyboard reaches."""
    caption = escape_html(content.caption)
    head = "".join(
        f'<th scope="col"{_align(content, at)}>{escape_html(name)}</th>' for at, name in enumerate(content.header)
    )
    body = "".join(f"<tr>{_row(content, row)}</tr>" for row in content.shown_rows())
    return (
        f'<div class="scroll" role="region" aria-label="Table: {caption}" tabindex="0">'
        f"<table><caption>{caption}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(content: Table, row: Sequence[str]) -> str:
    first, *others = (escape_html(cell) for cell in row)
    cells = "".join(f"<td{_align(content, at)}>{cell}</td>" for at, cell in enumerate(others, 1))
    breakable = first.replace("_", "_<wbr>")  # names of arms are long, and narrow pages break them
    return f'<th scope="row">{breakable}</th>{cells}'


def _align(content: Table, at: int) -> str:
    return ' class="text"' if at in content.text_columns else ""
