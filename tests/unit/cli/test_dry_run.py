"""What a dry run prints, pasted into a shell, does the same: also what larder itself makes, and from any folder."""

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


def test_torchs_build_is_handed_on(door: FrontDoor) -> None:
    assert door.run("venv", "load", "TORCH_BACKEND=cpu", "--dry-run").out == (
        "TORCH_BACKEND=cpu python3 -m larder venv load\n"
    )
    first = door.run("bench", "RUNNER=host", "TORCH_BACKEND=cpu", "--dry-run").out.splitlines()[0]
    assert first == "TORCH_BACKEND=cpu python3 -m larder venv bench &&"


@pytest.mark.parametrize("runner", ["compose", "host"])
def test_in_another_folder(door: FrontDoor, runner: str) -> None:
    here = door.root / "some where"
    here.mkdir()
    dry = door.run("etl-wds", f"RUNNER={runner}", "--dry-run", cwd=here, PYTHONPATH=str(door.root))
    ended = paste(door, dry, cwd=here)
    assert ended.stages
    assert {call["cwd"] for call in ended.stages} == {str(door.root)}
