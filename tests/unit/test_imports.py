"""Which parts of the code may import which others."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("larder", "services", "provision")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
STAGES = sorted(path.parent.name for path in (ROOT / "services").glob("*/__main__.py"))
LOADERS = ["image_folder", "objects", "shards", "chunks"]


def imports(module: str) -> Iterator[str]:
    """Return every module of ours that a module imports; for `from package import module`, the module."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in below]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] in ("larder", "services", "provision"))


def below(package: str) -> list[str]:
    return [module for module in MODULES if f"{module}.".startswith(f"{package}.")]


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_imports_another(stage: str) -> None:
    own = f"services.{stage}"
    for module in below(own):
        for name in imports(module):
            assert f"{name}.".startswith((f"{own}.", "services.commands.", "larder.")), f"{module} imports {name}"
            assert not f"{name}.".startswith("larder.cli."), f"{module} imports {name}"


def test_the_library_knows_no_program() -> None:
    for module in below("larder"):
        if not f"{module}.".startswith(("larder.cli.", "larder.__main__.")):
            for name in imports(module):
                assert not f"{name}.".startswith(("services.", "provision.", "larder.cli.")), f"{module} imports {name}"


def test_loaders_know_nothing_of_how_they_are_measured() -> None:
    for module in below("larder.loaders"):
        assert not [name for name in imports(module) if f"{name}.".startswith("larder.bench.")], module


@pytest.mark.parametrize("package", ["larder.loaders", "larder.bench", "services.bench", "services.jupyter"])
def test_no_modules_import_one_another(package: str) -> None:
    own = below(package)
    graph = {module: set(imports(module)) & set(own) - {module} for module in own}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_importing_loaders_imports_no_library_of_a_layout() -> None:
    heavy = ("torch", "torchvision", "boto3", "s3fs", "litdata", "webdataset")
    names = ", ".join(f"larder.loaders.{name}" for name in LOADERS)
    code = f"import sys, {names}; print(*sorted(set({heavy}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("larder.stream", ("torch", "PIL", "botocore", "pydantic")),
        ("larder.stream.array_stream", ("torch", "boto3", "s3transfer")),
    ],
    ids=["package", "arrays"],
)
def test_importing_the_stream_is_cheap(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*sorted(set({heavy}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
