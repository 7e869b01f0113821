"""The links of the Markdown files, as GitHub follows them."""

from __future__ import annotations

import os

import pytest

from tests.markdown import ROOT, anchors, links, pages, without_code

PAGES = pages()


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    assert dead_links(page, (ROOT / page).read_text()) == []


def test_dead_links_are_found() -> None:
    text = (
        "[a](glossary.md) [b](glosary.md) [c](glossary.md#data) [d](glossary.md#dta) [e](#f)\n\n# F\n\n[g](https://h)"
    )
    assert dead_links("docs/any.md", text) == ["glosary.md", "glossary.md#dta"]
    assert dead_links("docs/any.md", "`[a](b)`\n```sh\n[c](d)\n```\n[e](../../outside)") == ["../../outside"]


def test_anchors_are_githubs() -> None:
    text = "# The `larder` index, and [its](page.md) file_names\n## Twice\n```sh\n# no heading\n```\n## Twice\n"
    assert anchors(text) == {"the-larder-index-and-its-file_names", "twice", "twice-1"}
    assert "no heading" not in without_code(text)


def dead_links(page: str, text: str) -> list[str]:
    """Return the links of a page to files, folders or headings that aren't in the repository."""
    return [link for link in links(text) if "://" not in link and not is_alive(page, text, link)]


def is_alive(page: str, text: str, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
    if target.startswith("..") or (not (ROOT / target).exists() and path):
        return False
    return not anchor or anchor in anchors((ROOT / target).read_text() if path else text)
