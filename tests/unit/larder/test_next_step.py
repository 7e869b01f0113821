"""Stages in messages, and the commands that replace them."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path

import pytest

from larder.cli.setting_specs import settings_of_stages
from larder.errors import REMAKE_TREE, InputError
from larder.next_step import CREATED_BY, StageRun, parse_run, replace_runs, with_force

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "run",
    [
        StageRun("load"),
        StageRun("s3", "check"),
        StageRun("load", "--help"),
        StageRun("bench", "train").with_settings(LARDER_ARM="webdataset", S3_PREFIX="a prefix/with = and 'quotes'"),
    ],
    ids=["stage", "task", "help", "settings"],
)
def test_a_run_is_found_again_in_a_text(run: StageRun) -> None:
    assert replace_runs(f"run {run}, then `pip install ray`", lambda found: repr(found == run)) == (
        "run True, then `pip install ray`"
    )


@pytest.mark.parametrize(
    "words", ["", "pip install ray", "umount --lazy /mnt", "load A=b check", "Load", "'open", "a-b"]
)
def test_other_words_name_no_run(words: str) -> None:
    assert parse_run(words) is None


def test_empty_settings_are_left_out() -> None:
    assert str(StageRun("verify").with_settings(S3_PREFIX="")) == "`verify`"


def test_runs_that_one_command_does_are_named_once() -> None:
    shown = {"shard": "wds", "load": "wds", "extract": "local"}
    assert replace_runs("`shard` and `load`, or `extract`", lambda run: shown[run.stage]) == "wds, or local"
    assert replace_runs("`shard` and `extract`", lambda run: shown[run.stage]) == "wds and local"


def runs_with_settings() -> list[tuple[str, set[str]]]:
    """Return each stage that a message names in the code with settings, and these settings."""
    found = []
    for folder in ("larder", "services"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(
                        ast.Attribute(ast.Call(ast.Name("StageRun"), [ast.Constant(stage), *_]), "with_settings")
                    ):
                        found.append((stage, {word.arg for word in node.keywords if word.arg}))
    return found


def test_named_settings_are_those_of_the_stage() -> None:
    """But for one of the command's own. Tests of messages repeat a wrong name."""
    assert ("s3", {"LARDER_S3_LATENCY", "LARDER_S3_BANDWIDTH"}) in runs_with_settings()
    for stage, names in runs_with_settings():
        assert names - {"RUNNER"} <= {setting.name for setting in settings_of_stages([stage])}, stage


def test_anew_says_so_of_each_run() -> None:
    assert with_force(CREATED_BY["tree"]) == "`extract LARDER_FORCE=true` and `transform LARDER_FORCE=true`"
    assert "LARDER_SOURCE" in REMAKE_TREE


def test_an_error_keeps_its_runs_across_processes() -> None:
    error = InputError("what", next_step=f"run {StageRun('load')}")
    assert pickle.loads(pickle.dumps(error)).next_step == error.next_step


def test_the_library_knows_neither_make_nor_compose() -> None:
    named = re.compile(r"`make |make (etl|s3|mount|bench|jupyter|verify|train|ray|clean)\b|docker compose|services\.")
    names = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / "larder").rglob("*.py")
        if "cli" not in path.parts
        for line in path.read_text().splitlines()
        if named.search(line)
    }
    assert names == set()
