"""Examples in docstrings, of all modules that need no store."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import larder

ROOT = Path(larder.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if "loaders" not in path.parts and ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (
        "S3_ENDPOINT_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LARDER_LOG",
    ):
        monkeypatch.delenv(variable, raising=False)
    module = importlib.import_module(name)
    if ">>> import torch" in Path(str(module.__file__)).read_text(encoding="utf-8"):
        pytest.importorskip("torch")
    failed, tried = doctest.testmod(module)
    assert (failed, tried > 0) == (0, True)
