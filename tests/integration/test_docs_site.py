"""The documentation site: it builds without a warning, and nothing in it leads nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from docs.site.docstrings import to_restructured_text
from tests.markdown import pages
from tests.shared import Started, shared

ROOT = Path(__file__).resolve().parents[2]
API = {
    "bench": ["larder.bench.measure.measure", "larder.bench.comparison_record.Comparison"],
    "errors": ["larder.errors.LarderError", "larder.errors.ServiceError", "larder.errors.LarderError.format"],
    "loaders": ["larder.loaders.loader.Loader", "larder.loaders.shards.ShardLoader"],
    "store": ["larder.store.make_store"],
    "stream": ["larder.stream.ShardStream", "larder.stream.ShardStream.state_dict", "larder.stream.normalize"],
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, which all processes of a test run share."""

    def start(folder: Path) -> Started:
        command = [sys.executable, "-m", "docs.site", str(folder / "site")]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == f"file://{folder}/site/index.html\n"
        return Started({"folder": str(folder / "site")}, ["true"])

    with shared(tmp_path_factory, "docs-site", start) as facts:
        return Path(facts["folder"])


class Page(HTMLParser):
    """What an HTML page links to, and the anchors in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.links += [link for name in ("href", "src") if (link := known.get(name))]
        self.anchors |= {anchor for name in ("id", "name") if (anchor := known.get(name))}


def test_no_link_is_dead(site: Path) -> None:
    found = {path: Page(path) for path in site.rglob("*.html")}
    assert len(found) > 50
    assert [dead for path, page in found.items() for dead in dead_links(path, page, found)] == []


def dead_links(path: Path, page: Page, found: dict[Path, Page]) -> list[str]:
    """Return the links of a page to files that don't exist, and to anchors that no page has."""
    dead = []
    for link in page.links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        anchor = unquote(parts.fragment)
        if not target.is_file() or (anchor and target in found and anchor not in found[target].anchors):
            dead.append(f"{path.name}: {link}")
    return dead


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    here, there = tmp_path / "here.html", tmp_path / "there.html"
    here.write_text('<a href="there.html#a">a</a><a href="there.html#b">b</a><a href="c.html">c</a><img src="d.png">')
    there.write_text('<h1 id="a">A</h1>')
    found = {path: Page(path) for path in (here, there)}
    dead = ["here.html: there.html#b", "here.html: c.html", "here.html: d.png"]
    assert dead_links(here, found[here], found) == dead


def test_every_page_is_in_the_site_and_can_be_searched(site: Path) -> None:
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    assert set(index["docnames"]) == {page.removesuffix(".md") for page in pages()}
    assert "docs/stream" in {index["docnames"][n] for n in as_list(index["terms"]["shardstream"])}


def as_list(pages_of_a_term: int | list[int]) -> list[int]:
    return pages_of_a_term if isinstance(pages_of_a_term, list) else [pages_of_a_term]


def test_the_first_page_is_the_readme(site: Path) -> None:
    assert (site / "index.html").read_bytes() == (site / "README.html").read_bytes()


@pytest.mark.parametrize("page", API)
def test_the_api_is_documented(site: Path, page: str) -> None:
    assert set(API[page]) <= Page(site / "docs" / "api" / f"{page}.html").anchors


def test_files_of_the_repository_are_shown(site: Path) -> None:
    shown = (site / "files/provision/examples/block.toml.html").read_text(encoding="utf-8")
    assert "[server]" in shown
    assert (site / "files/docs/comparison-example.html").read_bytes() == (
        ROOT / "docs/comparison-example.html"
    ).read_bytes()
    first = Page(site / "index.html")
    assert "docs/decisions/README.html" in first.links
    assert "files/.env.example.html" in first.links


def test_indented_text_of_a_docstring_is_code() -> None:
    lines = [
        "Read.",
        "",
        "    one.A   what it reads",
        "",
        "    two.B   the rest",
        "",
        "Args:",
        "    a: A number.",
        "",
    ]
    example = ["Example:", "    for a in b:", "        print(a)", ""]
    assert to_restructured_text(lines + example) == [
        "Read.", "",
        "", ".. code-block:: text", "", "    one.A   what it reads", "", "    two.B   the rest", "",
        "Args:", "    a: A number.", "",
        "Example:",
        "", "    .. code-block:: python", "", "        for a in b:", "            print(a)", "",
    ]  # fmt: skip


def test_a_docstrings_prompts_stay() -> None:
    lines = ["Add.", "", "Example:", "    >>> 1 + 1", "    2"]
    assert to_restructured_text(lines) == lines
