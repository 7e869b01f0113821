"""The output of a dry run, pasted into a shell of any folder, does the same as the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Ended, FrontDoor


def paste(door: FrontDoor, dry: Ended, cwd: Path | None = None) -> Ended:
    """Run what a dry run has printed."""
    assert dry.code == 0, dry.err
    assert not dry.stages
    ended = door.run("-c", dry.out, through=(str(door.bin / "bash"),), cwd=cwd)
    assert ended.code == 0, ended.err
    return ended


@pytest.mark.parametrize("runner", ["compose", "host"])
def test_the_stores_keys_are_made_where_the_settings_say(door: FrontDoor, runner: str) -> None:
    home = door.root / "a home"
    paste(door, door.run("s3-up", f"RUNNER={runner}", f"LARDER_HOME={home}", "--dry-run"))
    assert (home / f"s3-{runner}.env").is_file()
    assert not (door.root / ".larder" / f"s3-{runner}.env").exists()


@pytest.mark.parametrize("runner", ["compose", "host"])
def test_jupyter_gets_its_token_and_workspace(door: FrontDoor, runner: str) -> None:
    words = ("jupyter", f"RUNNER={runner}", f"LARDER_HOME={door.root}/a home", "LARDER_WORKSPACE=my work", "--dry-run")
    paste(door, door.run(*words))
    token = door.root / "a home" / "jupyter-token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert (door.root / "my work").is_dir()
    assert "jupyter-token &&" not in door.run(*words).out


@pytest.mark.parametrize(
    ("words", "version"), [((), "3.13"), (("TEST_PYTHON=3.12",), "3.12")], ids=["default", "other"]
)
def test_another_python_runs_what_needs_no_torch(door: FrontDoor, words: tuple[str, ...], version: str) -> None:
    venv, tests = door.run("test-python", *words, "--dry-run").out.splitlines()
    assert venv == f"python3 -m larder venv {version} &&"
    assert tests.startswith(f"REQUIRE='' PYTHONDONTWRITEBYTECODE='' .venv-{version}/bin/python -m pytest ")
    assert {word for word in tests.split() if word.startswith("tests/")} >= {"tests/unit"}
    named = [word.removeprefix("--ignore=") for word in tests.split() if "tests/" in word]
    assert all((Path(__file__).parents[3] / name).exists() for name in named)
    assert "--without torch --without torchvision" in tests


def test_torchs_build_is_handed_on(door: FrontDoor) -> None:
    assert door.run("venv", "load", "TORCH_BACKEND=cpu", "--dry-run").out == (
        "TORCH_BACKEND=cpu python3 -m larder venv load\n"
    )
    first = door.run("bench", "RUNNER=host", "TORCH_BACKEND=cpu", "--dry-run").out.splitlines()[0]
    assert first == "TORCH_BACKEND=cpu python3 -m larder venv bench &&"


@pytest.mark.parametrize("runner", ["compose", "host"])
def test_a_comment_names_the_secrets_that_the_shell_must_have(door: FrontDoor, runner: str) -> None:
    words = ("etl-load", f"RUNNER={runner}", "--dry-run")
    dry = door.run(*words, "AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=the-secret")
    first, second, *calls = dry.out.splitlines()
    assert first == "# AWS_ACCESS_KEY_ID must be set in the shell: secrets are not printed"
    assert second.startswith("# AWS_SECRET_ACCESS_KEY must be set")
    assert not any(call.startswith("#") for call in calls)
    assert "the-secret" not in dry.out
    paste(door, dry)
    assert "#" not in door.run(*words).out


@pytest.mark.parametrize("runner", ["compose", "host"])
def test_in_another_folder(door: FrontDoor, runner: str) -> None:
    here = door.root / "some where"
    here.mkdir()
    dry = door.run("etl-wds", f"RUNNER={runner}", "--dry-run", cwd=here, PYTHONPATH=str(door.root))
    ended = paste(door, dry, cwd=here)
    assert ended.stages
    assert {call["cwd"] for call in ended.stages} == {str(door.root)}
