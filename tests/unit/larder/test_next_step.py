"""Stages that messages name, and the commands that take their place."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from larder.errors import TREE_ANEW, InputError
from larder.next_step import MAKES, Run, forced, parse_run, replace_runs

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "run",
    [
        Run("load"),
        Run("s3", "check"),
        Run("load", "--help"),
        Run("bench", "train").having(LARDER_ARM="webdataset", S3_PREFIX="a prefix/with = and 'quotes'"),
    ],
    ids=["stage", "task", "help", "settings"],
)
def test_a_run_is_found_again_in_a_text(run: Run) -> None:
    assert replace_runs(f"run {run}, then `pip install ray`", lambda found: repr(found == run)) == (
        "run True, then `pip install ray`"
    )


@pytest.mark.parametrize(
    "words", ["", "pip install ray", "umount --lazy /mnt", "load A=b check", "Load", "'open", "a-b"]
)
def test_other_words_name_no_run(words: str) -> None:
    assert parse_run(words) is None


def test_empty_settings_are_left_out() -> None:
    assert str(Run("verify").having(S3_PREFIX="")) == "`verify`"


def test_runs_that_one_command_does_are_named_once() -> None:
    shown = {"shard": "wds", "load": "wds", "extract": "local"}
    assert replace_runs("`shard` and `load`, or `extract`", lambda run: shown[run.stage]) == "wds, or local"
    assert replace_runs("`shard` and `extract`", lambda run: shown[run.stage]) == "wds and local"


def test_anew_says_so_of_each_run() -> None:
    assert forced(MAKES["tree"]) == "`extract LARDER_FORCE=true` and `transform LARDER_FORCE=true`"
    assert "LARDER_SOURCE" in TREE_ANEW


def test_an_error_keeps_its_runs_across_processes() -> None:
    error = InputError("what", next_step=f"run {Run('load')}")
    assert pickle.loads(pickle.dumps(error)).next_step == error.next_step


def test_the_library_knows_neither_make_nor_compose() -> None:
    named = re.compile(r"`make |make (etl|s3|mount|bench|jupyter|verify|train|ray|clean)\b|docker compose|services\.")
    found = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / "larder").rglob("*.py") if "cli" not in path.parts
        for line in path.read_text().splitlines() if named.search(line)
    }  # fmt: skip
    assert found == set()
