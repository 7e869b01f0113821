"""Which tests a run leaves out: a pytest plugin, loaded by pyproject.toml.

Only REQUIRE=all, and asking for a test by its name, runs all of them. Every other run leaves out

- tests marked `exhaustive`: they take long, and others show most of what they do;
- most cases of tests marked `one_in(n)`, wide tables whose cases are alike. The choice is the same in every run.

A test marked `any_store` shows what doesn't depend on the kind of store. Each of its cases runs with one kind only,
about half of them with each. Its name alone decides, so the choice is the same in every run; asking for the test by
name runs both.

`--without torch` is for an environment that lacks a module: a test is skipped where it imports that module, and says
so.
"""

from __future__ import annotations

import gc
import os
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, NoReturn
from zlib import crc32

import pytest

_LEFT_OUT = pytest.StashKey[int]()
_STORES = ("minio", "seaweedfs")


class _Absent(MetaPathFinder):
    """Skips tests that import a module that isn't to be used."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = frozenset(modules)

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """See MetaPathFinder.find_spec."""
        if fullname in self._modules:
            self._skip(fullname)

    def _skip(self, module: str) -> NoReturn:
        __tracebackhide__ = True
        pytest.skip(f"needs {module}, and this run is without it", allow_module_level=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    parser.addoption("--without", action="append", default=[], metavar="MODULE", help="skip tests that import MODULE")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    if config.getoption("--without"):
        sys.meta_path.insert(0, _Absent(config.getoption("--without")))
    config.addinivalue_line("markers", "exhaustive: takes long, and others cover most of it")
    config.addinivalue_line("markers", "any_store: asks no more of a store than others; each case runs with one kind")
    config.addinivalue_line("markers", "one_in(n): a table of like cases; every n-th is enough for most runs")


def pytest_collection(session: pytest.Session) -> None:
    """Let each process of pytest-xdist begin with different files, and reuse the files that others have rewritten.

    Rewriting assertions takes most of the time of collecting. `_sorted` restores the order.
    """
    config = session.config
    worker = getattr(config, "workerinput", None)
    if worker is None or config.getoption("ignore") or not all(Path(word).is_dir() for word in config.args):
        return
    files = sorted({str(path) for word in config.args for path in Path(word).rglob("test_*.py")})
    number, processes = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    at = len(files) * number // processes
    config.args[:] = files[at:] + files[:at]


def _sorted(items: list[pytest.Item]) -> list[pytest.Item]:
    return sorted(items, key=lambda item: str(item.path))  # tests of a file stay in their order


@pytest.hookimpl(tryfirst=True)  # before pytest groups tests by their fixtures, for which the order counts
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that this run needn't run."""
    if hasattr(config, "workerinput"):
        items[:] = _sorted(items)
    if any("::" in word for word in config.args):
        return
    if os.environ.get("REQUIRE") == "all":
        items[:] = [item for item in items if not _is_for_another_store(item)]
        return
    left_out = [item for item in items if item.get_closest_marker("exhaustive")]
    left_out += _rest_of_tables([item for item in items if not item.get_closest_marker("exhaustive")])
    gone = set(left_out)
    items[:] = [item for item in items if item not in gone]
    config.stash[_LEFT_OUT] = len(left_out)
    if hasattr(config, "workeroutput"):  # a process of pytest-xdist, whose output nobody sees
        config.workeroutput["left_out"] = len(left_out)
    else:
        config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish() -> None:
    """Exempt all modules and tests from garbage collection, which took a 15th of the time."""
    gc.collect()
    gc.freeze()


def _is_for_another_store(item: pytest.Item) -> bool:
    """Return whether a case of a test marked `any_store` belongs to the other kind of store, by its checksum."""
    kind = getattr(item, "callspec", None) and item.callspec.params.get("store")  # type: ignore[attr-defined]
    if kind not in _STORES or not item.get_closest_marker("any_store"):
        return False
    case = item.nodeid.replace(kind, "")
    return _STORES[crc32(case.encode()) % len(_STORES)] != kind


def _rest_of_tables(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the cases that aren't chosen of each table."""
    tables: dict[tuple[Path, str, int], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if marker := item.get_closest_marker("one_in"):
            tables[item.path, getattr(item, "originalname", item.name), marker.args[0]].append(item)
    rest = []
    for (_, name, one_in), cases in tables.items():
        chosen = random.Random(name).sample(range(len(cases)), -(-len(cases) // one_in))
        rest += [case for number, case in enumerate(cases) if number not in chosen]
    return rest


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Get the number of tests that a process of pytest-xdist has left out; all leave out the same."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Report the number of tests that were left out."""
    if count := config.stash.get(_LEFT_OUT, 0):
        terminalreporter.write_line(f"left out: {count} tests; `make test REQUIRE=all` runs them")
