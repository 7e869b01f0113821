"""Show the files of the repository that pages link to, such as a schema or a declaration.

On GitHub, such a link opens the file. On the site, it opens a page with the file's text, or a copy if browsers show
the file as it is. A link to a folder opens the folder's README.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.osutil import relative_uri

FOLDER = "files"
AS_THEY_ARE = (".html", ".png", ".svg")
_BEFORE_DOWNLOADS_ARE_COLLECTED = 100


def setup(app: Sphinx) -> None:
    """Register the extension."""
    shown = ShownFiles(app)
    app.connect("doctree-read", shown.link, priority=_BEFORE_DOWNLOADS_ARE_COLLECTED)
    app.connect("html-collect-pages", shown.pages)


class ShownFiles:
    """The files that pages link to."""

    def __init__(self, app: Sphinx) -> None:
        self._root = Path(app.srcdir)
        self._paths: set[Path] = set()

    def link(self, app: Sphinx, document: nodes.document) -> None:
        """Replace a page's links to files and folders."""
        page = app.env.docname
        for node in list(document.findall(addnodes.download_reference)):
            path = Path(os.path.normpath(self._root / page / ".." / node["reftarget"])).relative_to(self._root)
            self._paths.add(path)
            _replace(node, relative_uri(app.builder.get_target_uri(page), _address(path)))
        for node in list(document.findall(addnodes.pending_xref)):
            folder = Path(os.path.normpath(Path(page).parent / node["reftarget"]))
            if node["reftype"] == "myst" and f"{folder}/README" in app.env.found_docs:
                _replace(node, app.builder.get_relative_uri(page, f"{folder}/README"))

    def pages(self, app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
        """Copy the files that browsers show, and yield a page for each of the others."""
        for path in sorted(self._paths):
            source = self._root / path
            if path.suffix in AS_THEY_ARE:
                target = Path(app.outdir, FOLDER, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
                continue
            highlighter: Any = getattr(app.builder, "highlighter")  # noqa: B009
            body = highlighter.highlight_block(source.read_text(encoding="utf-8"), _language_of(path))
            yield f"{FOLDER}/{path}", {"title": str(path), "body": f"<h1>{escape(str(path))}</h1>{body}"}, "page.html"


def _address(path: Path) -> str:
    return f"{FOLDER}/{path}" if path.suffix in AS_THEY_ARE else f"{FOLDER}/{path}.html"


def _replace(node: nodes.Element, address: str) -> None:
    node.replace_self(nodes.reference("", "", *node.children, refuri=address, internal=True))


def _language_of(path: Path) -> str:
    try:
        return str(get_lexer_for_filename(path.name).aliases[0])
    except ClassNotFound:
        return "sh" if path.name.startswith(".env") else "text"
