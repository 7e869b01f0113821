"""What must be the same for an interrupted comparison to be resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from larder.bench.comparison import describe
from larder.bench.comparison.data import FoundData
from larder.bench.comparison.settings import ComparisonSettings
from larder.bench.comparison_record import read_comparison

MACHINE = read_comparison(Path(__file__).parents[1] / "comparison.json").provenance


def identity(*flags: str) -> str:
    found = FoundData(["stream"], {}, [], {})
    return describe.identity_of(ComparisonSettings.load("compare", flags, {}), found, MACHINE, ["decode"])


def test_code_that_has_changed_since_the_last_commit_is_other_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(describe, "PACKAGE", tmp_path)
    (module := tmp_path / "module.py").write_text("SPEED = 1\n")
    before = identity()
    assert identity() == before
    module.write_text("SPEED = 2\n")
    assert identity() != before


def test_more_rounds_resume_the_same_comparison() -> None:
    assert identity("--rounds=5") == identity("--rounds=7")
    assert identity("--workers=1") != identity("--workers=2")
