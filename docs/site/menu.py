"""The order of the pages in the site's menu, and what the API's pages document.

Sphinx takes both from the pages' own text. This extension adds them while the pages are read, so that the files show
nothing of it on GitHub.
"""

from __future__ import annotations

from collections.abc import Iterator

from sphinx.application import Sphinx

STAGES = ("extract", "transform", "load", "index", "shard", "optimize", "verify", "bench", "jupyter", "s3", "mount")
FIRST, DECISIONS = "README", "docs/decisions/README"
GUIDES = "Guides"
MENU = {
    GUIDES: (
        "docs/lab",
        "docs/use-in-training",
        "docs/stream",
        "docs/stream-tuning",
        "docs/which-layout",
        "docs/benchmarking",
        "docs/peers",
        "docs/scale",
    ),
    "Run it": ("docs/stages", "docs/operations", "docs/settings", "provision/README", "provision/host/README"),
    "Stages": tuple(f"services/{stage}/README" for stage in STAGES),
    "Python API": ("docs/api/stream", "docs/api/loaders", "docs/api/store", "docs/api/errors", "docs/api/bench"),
    "Reference": ("docs/contract", "docs/glossary", "CHANGELOG"),
    "Develop": ("CONTRIBUTING", "docs/architecture", DECISIONS),
}
LOADERS = (
    "loader.Loader",
    "shards.ShardLoader",
    "fast_shards.FastShardLoader",
    "chunks.ChunkLoader",
    "objects.ObjectLoader",
    "image_folder.ImageFolderLoader",
)
API = {
    "docs/api/stream": (
        "autoclass:: larder.stream.ShardStream\n   :members:\n   :inherited-members: IterableDataset",
        "autofunction:: larder.stream.normalize",
        "autoclass:: larder.stream.CenterCrop\n   :members:",
        "autoclass:: larder.stream.RandomResizedCrop\n   :members:",
    ),
    "docs/api/loaders": (
        *(f"autoclass:: larder.loaders.{name}\n   :members:\n   :show-inheritance:" for name in LOADERS),
        "automodule:: larder.loaders.preprocessing\n   :members:",
    ),
    "docs/api/store": (
        "autofunction:: larder.store.make_store",
        "autoclass:: larder.store.StoreSettings()",
        "autofunction:: larder.store.make_client",
    ),
    "docs/api/errors": ("automodule:: larder.errors\n   :members:\n   :show-inheritance:",),
    "docs/api/bench": (
        "autofunction:: larder.bench.measure.measure",
        "autoclass:: larder.bench.measure.Measurement()\n   :members:",
        "automodule:: larder.bench.own_loaders\n   :members:",
        "automodule:: larder.bench.comparison_record\n   :members:",
        "automodule:: larder.bench.comparison_parts\n   :members:",
    ),
}
"""The directives that each page of the API ends with."""


def setup(app: Sphinx) -> None:
    """Register the extension."""
    app.connect("source-read", complete)


def complete(app: Sphinx, page: str, source: list[str]) -> None:
    """Add to a page's text what only the site shows: menus to the first page, docstrings to those of the API."""
    pages = set(app.env.found_docs)
    if page == FIRST:
        source[0] += "".join(menus(pages))
    elif page == DECISIONS:
        source[0] += toctree("", sorted(name for name in pages if name.startswith("docs/decisions/0")))
    for directive in API.get(page, ()):
        source[0] += f"\n```{{eval-rst}}\n.. {directive}\n```\n"


def menus(pages: set[str]) -> Iterator[str]:
    """Yield the menus. Pages that none of them names are guides."""
    named = {page for group in MENU.values() for page in group}
    others = sorted(page for page in pages - named - {FIRST} if not page.startswith("docs/decisions/"))
    for caption, group in MENU.items():
        yield toctree(caption, [*group, *(others if caption == GUIDES else [])])


def toctree(caption: str, pages: list[str]) -> str:
    """Return a menu that the page itself doesn't show."""
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", "```{toctree}", *options, "", *(f"/{page}" for page in pages), "```", ""])
