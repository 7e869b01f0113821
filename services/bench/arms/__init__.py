"""The arms: one module each, named as on the command line.

An arm's docstring opens with one line that `--help` shows. Its `open_feed` checks its settings and its input, and
gives a feed. It imports torch and what else is heavy inside that function, after the checks: an arm's module is found
without being imported, and a wrong setting is reported at once.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from larder.progress import Reporter
    from services.bench.feed import Feed
    from services.bench.settings import BenchSettings


class OpenFeed(Protocol):
    """What an arm's `open_feed` is: gives a feed, and releases what that holds when the block ends."""

    def __call__(self, settings: BenchSettings, reporter: Reporter) -> AbstractContextManager[Feed]:
        """Raises ConfigurationError, InputError or ServiceError when this arm can't be measured."""


def names() -> list[str]:
    """The arms there are, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def about(name: str) -> str:
    """The first line of an arm's docstring, without its full stop."""
    source = (Path(__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return docstring.partition("\n")[0].rstrip(".")


def load(name: str) -> OpenFeed:
    """Import the arm `name`, one of `names()`."""
    return cast(OpenFeed, importlib.import_module(f"{__name__}.{name}").open_feed)
