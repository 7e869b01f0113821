"""`larder report`: which record it takes, what it writes, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import FrontDoor

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "tests" / "unit" / "bench" / "comparison.json"
BENCH = Path("larder") / "bench"


@pytest.fixture
def reporting(door: FrontDoor) -> FrontDoor:
    """A checkout with the code of reports, and two records in results/."""
    shutil.copytree(ROOT / BENCH / "report", door.root / BENCH / "report")
    for name in ("__init__.py", "comparison-1.schema.json", "accelerators.json"):
        shutil.copy(ROOT / BENCH / name, door.root / BENCH)
    (door.root / "results").mkdir()
    write_record(door, "compare-2026-11-28T120000.json", time="2026-11-28T12:00:00+00:00")
    write_record(door, "compare-2026-11-29T120000.json")
    return door


def write_record(door: FrontDoor, name: str, time: str = "2026-11-29T12:00:00+00:00", **changes: Any) -> Path:
    content = json.loads(EXAMPLE.read_text())
    content["provenance"].update(time_utc=time, **changes)
    content["settings"].update(seed=7, extra_seconds=60, results="/elsewhere", aws_secret_access_key="hidden")
    (path := door.root / "results" / name).write_text(json.dumps(content))
    return path


def test_the_latest_record_is_rendered(reporting: FrontDoor) -> None:
    ended = reporting.run("report")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("stream is the fastest here: 1,470 images/s")
    assert "remote_one_sample" in ended.out
    assert ended.calls == [], "no image, no environment"
    page = reporting.root / "results" / "compare-2026-11-29T120000.html"
    assert f"page {page}, tables {page.with_suffix('.md')}, picture {page.with_suffix('.svg')}" in ended.err
    assert "Next: python3 -m larder report AGAINST=<record>" in ended.err
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert "| stream | 2 | 1,470 |" in page.with_suffix(".md").read_text()
    assert len(list(page.parent.iterdir())) == 5, "no temporary file is left"


@pytest.mark.parametrize(
    "words",
    [
        ("compare-2026-11-28T120000.json",),
        ("results/compare-2026-11-28T120000.json",),
        ("RECORD=compare-2026-11-28T120000.json",),
        ("--record", "compare-2026-11-28T120000.json"),
    ],
    ids=["name", "path", "setting", "flag"],
)
def test_a_record_is_named_in_several_ways(reporting: FrontDoor, words: tuple[str, ...]) -> None:
    assert reporting.run("report", *words).code == 0
    assert (reporting.root / "results" / "compare-2026-11-28T120000.html").exists()


def test_make_takes_both_records(reporting: FrontDoor) -> None:
    against = "AGAINST=compare-2026-11-28T120000.json"
    ended = reporting.run("report", "RECORD=compare-2026-11-29T120000.json", against, through=("make",))
    assert ended.code == 0, ended.err
    assert (
        "Against compare-2026-11-28T120000.json of 2026-11-28 12:00 UTC: nothing changed beyond the noise" in ended.out
    )


def test_against_shows_what_changed(reporting: FrontDoor) -> None:
    ended = reporting.run("report", "--against", "compare-2026-11-28T120000.json")
    assert ended.code == 0, ended.err
    assert "nothing changed beyond the noise of 3.6%" in ended.out
    assert 'id="changes"' in (reporting.root / "results" / "compare-2026-11-29T120000.html").read_text()
    assert "Next:" not in ended.err


def test_the_page_has_the_commands_that_reproduce_it(reporting: FrontDoor) -> None:
    write_record(reporting, "compare-3.json", revision="a1b2c3d4-dirty")
    reporting.run("report", "compare-3.json")
    page = (reporting.root / "results" / "compare-3.html").read_text()
    assert "git checkout a1b2c3d4   # and the changes that it had" in page
    [command] = [line for line in page.split("\n") if line.startswith("python3 -m larder compare")]
    assert "LARDER_SEED=7" in command
    assert "LARDER_EXTRA_SECONDS=60" in command
    assert "S3_BUCKET=larder" in command
    assert "elsewhere" not in command
    assert "hidden" not in command
    assert "LARDER_ROUNDS" not in command, "5 is the default"


def test_a_revision_that_is_none_is_not_checked_out(reporting: FrontDoor) -> None:
    write_record(reporting, "compare-3.json", revision="main; rm -rf ~")
    reporting.run("report", "compare-3.json")
    assert "git checkout" not in (reporting.root / "results" / "compare-3.html").read_text()


def test_it_works_where_only_the_package_is(reporting: FrontDoor) -> None:
    shutil.rmtree(reporting.root / "services")
    ended = reporting.run("report")
    assert ended.code == 0, ended.err
    assert (reporting.root / "results" / "compare-2026-11-29T120000.html").exists()


def test_a_dry_run_writes_nothing(reporting: FrontDoor) -> None:
    ended = reporting.run("report", "--dry-run")
    assert (ended.code, ended.out) == (0, "")
    assert "would write " in ended.err
    assert len(list((reporting.root / "results").iterdir())) == 2


def test_without_a_record_the_command_that_makes_one_is_named(reporting: FrontDoor) -> None:
    shutil.rmtree(reporting.root / "results")
    ended = reporting.run("report")
    assert ended.code == 3
    assert "has no record of a comparison" in ended.err
    assert "run `python3 -m larder compare`, or name a record in RECORD" in ended.err


TWO = ("compare-2026-11-28T120000.json", "results/compare-2026-11-29T120000.json")


def test_several_records_are_put_together_first(reporting: FrontDoor) -> None:
    """The stand-in for the stage writes nothing, and the command says that its record is missing."""
    ended = reporting.run("report", *TWO, "RUNNER=host")
    assert ended.code == 3
    assert "has no new record" in ended.err
    [stage] = ended.stages
    names = "compare-2026-11-28T120000.json,compare-2026-11-29T120000.json"
    assert stage["argv"][1:] == ["-m", "services.bench", "--task", "compare", "--records", names]


def test_records_in_other_folders_are_named_by_their_paths(reporting: FrontDoor, tmp_path: Path) -> None:
    moved = shutil.move(reporting.root / "results" / "compare-2026-11-28T120000.json", tmp_path / "old.json")
    ended = reporting.run("report", "--dry-run", f"RECORD={moved},compare-2026-11-29T120000.json", "RUNNER=host")
    assert ended.code == 0, ended.err
    assert f"--records {moved},compare-2026-11-29T120000.json" in ended.out


def test_records_that_arent_comparable_are_refused_before_anything_runs(reporting: FrontDoor) -> None:
    write_record(reporting, "compare-3.json", cpu_model="another CPU")
    ended = reporting.run("report", TWO[0], "compare-3.json")
    assert ended.code == 3
    assert f"{TWO[0]} and compare-3.json aren't comparable: provenance.cpu_model is" in ended.err
    assert not ended.calls


def test_the_rounds_of_several_runs_make_one_record_and_its_page(tmp_path: Path) -> None:
    """As from the installed package, without a checkout: nothing is a stand-in."""
    shutil.copytree(ROOT / "larder", tmp_path / "site" / "larder")
    (results := tmp_path / "results").mkdir()
    for day in (28, 29):
        content = json.loads(EXAMPLE.read_text())
        content["provenance"]["time_utc"] = f"2026-11-{day}T12:00:00+00:00"
        (results / f"compare-{day}.json").write_text(json.dumps(content))
    ended = subprocess.run(
        [sys.executable, "-m", "larder", "report", "compare-28.json", "compare-29.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin", "PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)},
    )
    assert ended.returncode == 0, ended.stderr
    [path] = results.glob("compare-*-2-runs.json")
    record = json.loads(path.read_text())
    assert record["runs_utc"] == ["2026-11-28T12:00:00+00:00", "2026-11-29T12:00:00+00:00"]
    once = json.loads(EXAMPLE.read_text())["summary"]["arms"]
    assert {one["arm"]: one["rounds"] for one in record["summary"]["arms"]} == {
        one["arm"]: 2 * one["rounds"] for one in once
    }
    rounds = 2 * max(one["rounds"] for one in once)
    page = path.with_suffix(".html").read_text()
    assert "2 runs put together" in page
    assert f"{rounds} rounds of 2 runs" in path.with_suffix(".md").read_text()
    assert ended.stdout.count(record["summary"]["answer"]) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "can't be read: No such file or directory"),
        ("imgs/s", "isn't JSON"),
        ('{"schema": "larder-comparison/9"}', "its `schema` is 'larder-comparison/9'"),
    ],
    ids=["absent", "no JSON", "another version"],
)
def test_what_is_no_record_is_refused(reporting: FrontDoor, text: str | None, message: str) -> None:
    if text is not None:
        (reporting.root / "results" / "other.json").write_text(text)
    for words in (("other.json",), ("--against", "other.json")):
        ended = reporting.run("report", *words)
        assert ended.code == 3
        assert message in ended.err
        assert "next step: " in ended.err


def test_a_record_of_another_machine_is_not_compared(reporting: FrontDoor) -> None:
    write_record(reporting, "other.json", cpu_model="another \x1b[2J")
    ended = reporting.run("report", "--against", "other.json")
    assert ended.code == 3
    assert "aren't comparable: provenance.cpu_model is 'AMD EPYC 9R14' in one and 'another " in ended.err
    assert "\x1b" not in ended.err
    assert not list((reporting.root / "results").glob("*.html"))


def test_a_folder_that_can_not_be_written_is_named(reporting: FrontDoor) -> None:
    (reporting.root / "file").write_text("")
    record = "results/compare-2026-11-29T120000.json"
    ended = reporting.run("report", record, "LARDER_RESULTS=file/results")
    assert ended.code == 3
    assert "LARDER_RESULTS=" in ended.err
    assert "the report can't be written there: Not a directory" in ended.err
    assert f"set LARDER_RESULTS to a folder that user {os.getuid()} can write" in ended.err


def test_python_3_9_renders_it(reporting: FrontDoor) -> None:
    places = [*os.get_exec_path(), *map(str, Path.home().glob(".pyenv/versions/3.9*/bin"))]
    interpreter = shutil.which("python3.9", path=os.pathsep.join(reversed(places)))
    if interpreter is None:
        return  # test_command_line looks for newer syntax and modules
    ended = reporting.run("-m", "larder", "report", "AGAINST=compare-2026-11-28T120000.json", through=(interpreter,))
    assert ended.code == 0, ended.err
