"""The commands for a stage, for each front door."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from larder.cli.commands import BY_NAME
from larder.commands import TARGETS
from larder.errors import InputError
from larder.next_step import CREATED_BY, StageRun, with_force
from larder.settings import Settings
from larder.stage import StageOutcome
from larder.typed_line import describe_line
from services.commands import KNOWN_INVOCATIONS, command, main, replace_stage_names

ROOT = Path(__file__).resolve().parents[2]
FORCED = StageRun("load").with_settings(LARDER_FORCE="true")
BUCKET = StageRun("s3", "bucket").with_settings(S3_BUCKET="photos")
TRAIN = StageRun("bench", "train").with_settings(LARDER_ARM="webdataset")


@pytest.mark.parametrize(
    ("run", "way", "expected"),
    [
        (FORCED, "make", "make etl-load LARDER_FORCE=true"),
        (FORCED, "larder", "larder etl-load LARDER_FORCE=true"),
        (FORCED, "compose", "LARDER_FORCE=true docker compose -f compose/load.yaml run --rm load"),
        (FORCED, "", "LARDER_FORCE=true python -m services.load"),
        (StageRun("load", "shards"), "make", "make etl-wds"),
        (StageRun("load", "shards"), "compose", "docker compose -f compose/wds.yaml run --rm load"),
        (StageRun("load", "chunks"), "", "LARDER_LOAD=litdata python -m services.load"),
        (BUCKET, "make", "make s3-bucket BUCKET=photos"),
        (BUCKET, "compose", "S3_BUCKET=photos docker compose -f compose/s3.yaml run --rm s3 --task bucket"),
        (BUCKET, "", "S3_BUCKET=photos python -m services.s3 --task bucket"),
        (TRAIN, "make", "make train ARM=webdataset"),
        (TRAIN, "compose", "LARDER_ARM=webdataset docker compose -f compose/bench.yaml run --rm bench --task train"),
        (StageRun("mount"), "compose", "docker compose -f compose/mount.yaml up -d --wait mount"),
        (StageRun("mount", "unmount"), "compose", "docker compose -f compose/mount.yaml rm --stop --force mount"),
        (StageRun("mount", "unmount"), "", "python -m services.mount --unmount"),
        (StageRun("jupyter", "up"), "make", "make jupyter"),
        (StageRun("jupyter", "up"), "", "python -m services.jupyter --task up"),
        (StageRun("ray", "up"), "", "ray start --head"),
        (StageRun("load", "--help"), "make", "python3 -m larder etl-load --help"),
        (StageRun("load", "--help"), "larder", "larder etl-load --help"),
        (StageRun("load", "--help"), "compose", "docker compose -f compose/load.yaml run --rm load --help"),
        (StageRun("load", "--help"), "", "python -m services.load --help"),
        (StageRun("verify").with_settings(S3_PREFIX="a b; rm"), "make", "make verify S3_PREFIX='a b; rm'"),
        (StageRun("dmesg"), "make", None),
    ],
    ids=lambda value: str(value).strip("`"),
)
def test_a_command(run: StageRun, way: str, expected: str | None) -> None:
    assert command(run, way) == expected


def test_stages_in_a_row_are_one_target_and_two_services() -> None:
    assert replace_stage_names(f"run {with_force(CREATED_BY['webdataset'])}; then this", "make") == (
        "run `make etl-wds LARDER_FORCE=true`; then this"
    )
    assert replace_stage_names(f"run {CREATED_BY['webdataset']}", "compose") == (
        "run `docker compose -f compose/wds.yaml run --rm shard` and `docker compose -f compose/wds.yaml run --rm load`"
    )


def test_who_has_no_front_door_removes_a_volume_by_hand() -> None:
    assert replace_stage_names(f"{StageRun('clean', 'wds')}, if its space is needed", "make").startswith(
        "`make clean-wds`,"
    )
    assert replace_stage_names(f"{StageRun('clean', 'wds')}, if its space is needed", "compose").startswith(
        "remove the volume,"
    )


@pytest.mark.parametrize("invocation", ["compose", ""])
def test_a_report_needs_no_image(invocation: str) -> None:
    assert command(StageRun("report"), invocation) == "python3 -m larder report"
    assert command(StageRun("report"), "make") == "make report"


def tasks() -> list[StageRun]:
    """Return every stage and task that has a command."""
    return [StageRun(stage, task) for stage, task in TARGETS if stage not in ("clean", "report")]


@pytest.mark.parametrize("run", tasks(), ids=lambda run: str(run).strip("`"))
def test_a_target_a_compose_file_and_a_stage_are_there(run: StageRun) -> None:
    """Every command in a message exists."""
    target = (command(run, "make") or "").split()[1]
    assert target in BY_NAME
    words = shlex.split(command(run, "compose") or "")
    file = ROOT / words[words.index("-f") + 1]
    text = file.read_text()
    named = [word for word in words if word in ("minio", "ray-head", "ray-worker", run.stage)]
    assert named and all(f"\n  {name}:" in text for name in named)
    if run.stage != "ray":
        assert (ROOT / "services" / run.stage / "__main__.py").exists()


class Nothing(Settings):
    """No settings."""


def run_stage(stage: str, next_step: str, capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = main(
        stage, Nothing, lambda *_: StageOutcome(f"done; {StageRun('verify')} reads it", next_step), "", list(argv)
    )
    return code, capsys.readouterr().err


@pytest.mark.parametrize("way", KNOWN_INVOCATIONS)
def test_a_stage_says_commands(way: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_FRONT_DOOR", way)
    code, stderr = run_stage("load", str(StageRun("s3", "check")), capsys)
    assert code == 0
    assert f"load: done; `{command(StageRun('verify'), way)}` reads it\n" in stderr
    assert f"load: next: `{command(StageRun('s3', 'check'), way)}`\n" in stderr
    code, stderr = run_stage("load", "", capsys, "--colour=blue")
    assert code == 2
    assert f"see `{command(StageRun('load', '--help'), way)}` and .env.example" in stderr


@pytest.mark.parametrize(("way", "shown"), [("make", False), ("larder", False), ("compose", True), ("", True)])
def test_what_the_front_door_runs_by_itself_is_no_next_step(
    way: str, shown: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARDER_FRONT_DOOR", way)
    assert ("next:" in run_stage("shard", str(StageRun("load", "shards")), capsys)[1]) is shown
    assert "next:" in run_stage("load", str(StageRun("bench")), capsys)[1]


def test_an_error_s_next_step_is_a_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_FRONT_DOOR", "make")

    def fail(*_: object) -> StageOutcome:
        raise InputError("no data", next_step=f"run {CREATED_BY['objects']}, which restores them")

    assert main("bench", Nothing, fail, "", []) == 3
    assert "error: no data\n  next step: run `make etl-load`, which restores them\n" in capsys.readouterr().err


def test_a_suggestion_of_the_same_command_has_all_its_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARDER_FRONT_DOOR", "make")
    typed = {
        "LARDER_DATASET": "photos",
        "LARDER_BATCH_SIZE": "16",
        "ARM": "stream",
        "AWS_SECRET_ACCESS_KEY": "a-key",
        "LARDER_SOURCE": "https://host/a.zip?signature=s",
    }
    monkeypatch.setenv("LARDER_REPEATED", describe_line("bench", typed))
    _, stderr = run_stage("bench", str(StageRun("bench").with_settings(LARDER_ARM="webdataset")), capsys)
    assert "next: `make bench ARM=webdataset LARDER_DATASET=photos LARDER_BATCH_SIZE=16`\n" in stderr
    assert "`make verify LARDER_DATASET=photos`" in stderr


def test_a_next_step_has_the_settings_that_choose_data_store_and_runner(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARDER_FRONT_DOOR", "make")
    typed = {
        "LARDER_DATASET": "my photos",
        "LARDER_SOURCE": "a.zip",
        "S3_ENDPOINT_URL": "http://me:pw@host",
        "S3_BUCKET": "one",
    }
    monkeypatch.setenv("LARDER_REPEATED", describe_line("load", typed))
    _, stderr = run_stage("load", str(StageRun("s3", "bucket").with_settings(S3_BUCKET="other")), capsys)
    assert "reads it\n" in stderr and "`make verify 'LARDER_DATASET=my photos' S3_BUCKET=one`" in stderr
    assert "next: `make s3-bucket BUCKET=other 'LARDER_DATASET=my photos'`\n" in stderr


def test_another_front_door_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_FRONT_DOOR", "mak")
    code, stderr = run_stage("load", "", capsys)
    assert code == 2
    assert "LARDER_FRONT_DOOR='mak' must be one of make, larder, module, compose" in stderr


def test_help_is_called_as_the_stage_was_started(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for way, program in (
        ("compose", "docker compose -f compose/load.yaml run --rm load"),
        ("", "python -m services.load"),
    ):
        monkeypatch.setenv("LARDER_FRONT_DOOR", way)
        with pytest.raises(SystemExit):
            main("load", Nothing, lambda *_: StageOutcome("", ""), "", ["--help"])
        assert f"usage: {program} " in " ".join(capsys.readouterr().out.split()) + " "
