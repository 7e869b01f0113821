"""The version is defined only in pyproject.toml."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import larder

ROOT = Path(__file__).parents[3]


def test_a_checkout_has_the_version_of_its_pyproject(tmp_path: Path) -> None:
    (tmp_path / "larder").mkdir()
    shutil.copy(ROOT / "larder" / "__init__.py", tmp_path / "larder")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "larder-data"\nversion = "7.8.9"   # why not\n')
    show = [sys.executable, "-I", "-c", "import sys; sys.path[:0] = ['.']; import larder; print(larder.__version__)"]
    assert subprocess.check_output(show, cwd=tmp_path, text=True) == "7.8.9\n"


def test_it_is_looked_up_only_when_asked_for() -> None:
    """importlib.metadata takes longer to import than the front door has for its help."""
    check = "import larder; print(sorted({'re', 'importlib.metadata', 'pathlib'} & set(sys.modules)))"
    look = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = [{str(ROOT)!r}]; {check}"]
    assert subprocess.check_output(look, text=True) == "[]\n"


def test_elsewhere_it_is_the_installed_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(larder, "__file__", str(tmp_path / "larder" / "__init__.py"))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"{name} of the index")
    assert larder.__version__ == "larder-data of the index"


def test_there_is_no_other_attribute_of_that_kind() -> None:
    with pytest.raises(AttributeError, match="version_info"):
        larder.version_info  # noqa: B018


def test_no_source_file_repeats_it() -> None:
    version = larder.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    for folder in ("larder", "services", "provision", "docs", "benchmarks"):
        assert not [path for path in (ROOT / folder).rglob("*.py") if f'"{version}"' in path.read_text()]
    assert version not in (ROOT / "services" / "Dockerfile").read_text()
