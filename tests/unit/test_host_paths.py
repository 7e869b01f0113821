"""Messages name folders of the host in place of those of a container."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from larder.errors import StorageError
from larder.progress import Reporter
from larder.stage import StageOutcome
from services.commands import main
from services.host_paths import VARIABLE, show_host_paths
from tests.unit.test_commands import Nothing

FOLDERS = {"/results": "/home/me/my results", "/mount": "/srv/mount"}


@pytest.fixture
def in_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps(FOLDERS))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see /results/.compare-1/00012.log", "see /home/me/my results/.compare-1/00012.log"),
        ("results='/results': can't be written", "results='/home/me/my results': can't be written"),
        ("/results", "/home/me/my results"),
        ("/mount/photos, /results.", "/srv/mount/photos, /home/me/my results."),
        ("s3://bucket/results/a and /other/results", "s3://bucket/results/a and /other/results"),
        ("/results-2 and /resultsets", "/results-2 and /resultsets"),
    ],
)
def test_paths(in_container: None, text: str, shown: str) -> None:
    assert show_host_paths(text) == shown


@pytest.mark.parametrize("value", ["", "{", "[1]"])
def test_without_folders_a_text_stays(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert show_host_paths("/results/a") == "/results/a"


def test_a_stages_events_and_errors_have_them(in_container: None, capsys: pytest.CaptureFixture[str]) -> None:
    def work(_: Nothing, reporter: Reporter) -> StageOutcome:
        reporter.event("kept", "kept in /results/.compare-1")
        raise StorageError("/results is full", next_step="see /results/log")

    assert main("bench", Nothing, work, "", []) == 3
    assert capsys.readouterr().err == (
        "bench: kept in /home/me/my results/.compare-1\n"
        "bench: error: /home/me/my results is full\n  next step: see /home/me/my results/log\n"
    )


def test_images_have_every_module_that_stages_share() -> None:
    root = Path(__file__).parents[2]
    dockerfile = (root / "services" / "Dockerfile").read_text()
    shared = [path.name for path in (root / "services").glob("*.py")]
    assert "host_paths.py" in shared
    assert all(f"/opt/larder/services/{name}" in dockerfile for name in shared)
