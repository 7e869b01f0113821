"""A short run of every fuzz target; `python -m tests.fuzz TARGET` runs one for as long as you like."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from larder.errors import InputError
from tests.fuzz import harness
from tests.fuzz.__main__ import TARGETS


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", TARGETS)
def test_target_finds_nothing(name: str) -> None:
    harness.load(TARGETS[name])  # in this process, too: the test is skipped if a module is missing
    done, findings = harness.fuzz(TARGETS[name], seed=0, count=60, seconds=60)
    assert done
    assert not findings


def raises(_random: random.Random, folder: Path) -> None:
    """A target with a fault."""
    (folder / "input").touch()
    raise KeyError("found")


def takes_much(_random: random.Random, _folder: Path) -> None:
    """A target that takes too much memory."""
    assert len(b"x" * 400_000_000)


def refuses(random: random.Random, _folder: Path) -> None:
    """A target whose errors are readable, except for one."""
    error = InputError("bad input", next_step="fix it")
    error.what = random.choice([error.what, "bad \x1b[2Jinput"])  # as if it were not escaped when it is made
    raise error


@pytest.mark.parametrize(("target", "why"), [(raises, "KeyError"), (takes_much, "it took")])
def test_findings_are_reported(target: harness.Target, why: str) -> None:
    assert why in str(harness.run_one(target, 1))


def test_messages_for_people_are_no_findings_unless_they_are_raw() -> None:
    findings = [harness.run_one(refuses, seed) for seed in range(10)]
    assert None in findings
    assert any("not fit for a terminal" in str(what) for what in findings)


def test_a_child_that_dies_is_a_finding() -> None:
    done, findings = harness.fuzz("tests.fuzz.no_such_module:target", seed=7, count=1, seconds=60)
    assert done == 1
    assert findings[0].seed in (6, 7)
    assert "ModuleNotFoundError" in findings[0].what


@pytest.mark.parametrize(("name", "seed"), [("parquet", 1_000_991)], ids=["a footer that ends pyarrow"])
def test_earlier_findings_stay_fixed(name: str, seed: int) -> None:
    _, findings = harness.fuzz(TARGETS[name], seed, 1, 60.0)
    assert findings == []
