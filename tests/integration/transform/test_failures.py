"""Every failure names its cause and the next step, has its exit code, and loses nothing."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Until, workers_of
from tests.integration.conftest import Held, MakePicture, Stage
from tests.integration.transform.conftest import Extract, ReadTree, Snapshot, Transform

NEW_NAMESPACE = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--map-root-user")
Harm = Callable[[Path], None]


def message(result: Any) -> str:
    return str(result.events[-1]["message"])


@pytest.mark.parametrize(
    ("flags", "env", "parts"),
    [
        (["--recipe=food12"], {}, ["--recipe", "'food12'", "auto, csv, food101, food11, imagefolder"]),
        (["--verify=deep"], {}, ["--verify", "'header', 'decode' or 'none'"]),
        ([], {"LARDER_MAX_REJECTS": "-1", "LARDER_VERIFY": "x"}, ["LARDER_MAX_REJECTS", "LARDER_VERIFY", "2 faults"]),
        (["--max-rejects=few"], {}, ["--max-rejects", "whole number"]),
        (["--workers=0"], {}, ["--workers"]),
        (["--no-such-flag"], {}, ["--no-such-flag: no such flag"]),
    ],
)
def test_wrong_setting(transform: Transform, flags: list[str], env: dict[str, str], parts: list[str]) -> None:
    result = transform(*flags, env=env | {"LARDER_FRONT_DOOR": ""})
    assert result.code == 2
    for part in [*parts, "next step: see `python -m services.transform --help`"]:
        assert part in message(result)


def test_no_volume(transform: Transform, tmp_path: Path) -> None:
    result = transform(volume=tmp_path / "absent", env={"LARDER_FRONT_DOOR": ""})
    assert result.code == 3 and "services.extract" in message(result)


def test_nothing_extracted(transform: Transform, volume: Path) -> None:
    result = transform(env={"LARDER_FRONT_DOOR": ""})
    assert result.code == 3
    assert f"{volume}/raw holds no finished data" in message(result)
    assert "next step: run `python -m services.extract`" in message(result)


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--recipe=csv"], ["no CSV file", "LARDER_CSV"]),
        (["--recipe=imagefolder"], ["no class folders", "LARDER_RECIPE"]),
        (["--recipe=csv", "--csv=x.csv"], ["no file x.csv", "LARDER_CSV"]),
    ],
)
def test_wrong_recipe_keeps_the_tree(
    extract: Extract, transform: Transform, tree: ReadTree, food11: dict[str, bytes], flags: list[str], parts: list[str]
) -> None:
    extract(food11)
    assert transform().code == 0
    whole = tree()
    result = transform(*flags)
    assert result.code == 3
    for part in parts:
        assert part in message(result)
    assert tree() == whole
    assert transform().events[0]["up_to_date"] is True


def test_missing_split(extract: Extract, transform: Transform, food11: dict[str, bytes]) -> None:
    extract({path: data for path, data in food11.items() if not path.startswith("evaluation")})
    result = transform()
    assert result.code == 3
    assert "no files for the split evaluation" in message(result) and "LARDER_RECIPE" in message(result)


def overwrite(path: Path, text: str) -> None:
    path.unlink()  # it may be a link to what must stay as it is
    path.write_text(text)


def newer(path: Path) -> None:
    overwrite(path, json.dumps(json.loads(path.read_text()) | {"version": 2}))


def remove_and_put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


RAW_HARM: list[tuple[str, Harm, str]] = [
    ("file-changed", lambda raw: overwrite(raw / "training/3_0.jpg", "changed"), "has changed since it was extracted"),
    ("file-gone", lambda raw: (raw / "training/3_0.jpg").unlink(), "is gone since it was extracted"),
    ("file-is-folder", lambda raw: remove_and_put_folder(raw / "training/3_0.jpg"), "is gone since"),
    ("manifest-corrupt", lambda raw: overwrite(raw / "_larder/manifest.json", "{"), "is not a manifest"),
    ("manifest-newer", lambda raw: newer(raw / "_larder/manifest.json"), "not a manifest that this version reads"),
    ("manifest-gone", lambda raw: (raw / "_larder/manifest.json").unlink(), "holds no finished data"),
    ("index-corrupt", lambda raw: overwrite(raw / "_larder/index.jsonl", "{}\n"), "is not what its manifest says"),
    ("index-gone", lambda raw: (raw / "_larder/index.jsonl").unlink(), "is not what its manifest says"),
]


@pytest.mark.parametrize(("harm", "what"), [item[1:] for item in RAW_HARM], ids=[item[0] for item in RAW_HARM])
def test_harm_to_the_input_keeps_the_tree(
    extract: Extract, transform: Transform, tree: ReadTree, food11: dict[str, bytes], harm: Harm, what: str
) -> None:
    raw = extract(food11)
    assert transform().code == 0
    whole = tree()
    harm(raw)
    result = transform("--force")
    assert result.code == 3
    assert what in message(result) and "next step: " in message(result)
    assert tree() == whole


@pytest.mark.parametrize(
    "harm",
    [
        lambda tree: overwrite(tree / "_larder/manifest.json", "not json"),
        lambda tree: newer(tree / "_larder/manifest.json"),
        lambda tree: overwrite(tree / "_larder/index.jsonl", "{}\n"),
    ],
    ids=["manifest-corrupt", "manifest-newer", "index-corrupt"],
)
def test_harm_to_the_result_is_named_and_forced_away(
    extract: Extract, transform: Transform, tree: ReadTree, food11: dict[str, bytes], volume: Path, harm: Harm
) -> None:
    extract(food11)
    assert transform().code == 0
    whole = tree()
    harm(volume / "Food-11")
    result = transform()
    assert result.code == 3 and "LARDER_FORCE=true" in message(result)
    assert transform("--force").code == 0
    assert tree() == whole


def test_broken_record_of_the_run_does_no_harm(
    extract: Extract, transform: Transform, food11: dict[str, bytes], volume: Path
) -> None:
    extract(food11)
    assert transform().code == 0
    overwrite(volume / "Food-11" / "_larder" / "run.json", "{")
    assert transform().code == 0


# A small file system of its own: filled by extract, then the disk's room is taken away, then the stage runs. What is on
# it afterwards comes back as an archive, since it vanishes with the namespace.
IN_SMALL_DISK = """
set -e
mount -t tmpfs -o size=64m tmpfs {volume}
{extract} 2>/dev/null
{transform} 2>/dev/null
{harm}
set +e
{failing}
code=$?
set -e
{heal}
cp -a {volume}/Food-11 {copy}/kept
cp -a {volume}/raw {copy}/raw
{failing} >/dev/null 2>&1
cp -a {volume}/Food-11 {copy}/after
exit $code
"""
DISK_HARM = [
    (
        "no-inodes",
        "mount -o remount,nr_inodes=$(($(df --output=iused {volume} | tail -1)+4)) {volume}",
        "mount -o remount,nr_inodes=9999 {volume}",
        "the disk is full",
        "free some space",
    ),
    (
        "no-blocks",
        "mount -o remount,size=$(($(df --output=used -k {volume} | tail -1)+40))k {volume}",
        "mount -o remount,size=64m {volume}",
        "the disk is full",
        "free some space",
    ),
    ("read-only", "mount -o remount,ro {volume}", "mount -o remount,rw {volume}", "read-only", "mount it writable"),
]


@pytest.mark.parametrize(
    ("harm", "heal", "cause", "remedy"), [item[1:] for item in DISK_HARM], ids=[item[0] for item in DISK_HARM]
)
def test_disk_that_takes_no_more(
    mounts: None,
    stage: Stage,
    tmp_path: Path,
    volume: Path,
    food11: dict[str, bytes],
    snapshot: Snapshot,
    harm: str,
    heal: str,
    cause: str,
    remedy: str,
) -> None:
    source, copy, script = tmp_path / "source", tmp_path / "copy", tmp_path / "script.sh"
    copy.mkdir()
    for path, data in food11.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(data)

    def run(name: str, *flags: str) -> str:
        return shlex.join([sys.executable, "-m", f"services.{name}", f"--volume={volume}", "--workers=1", *flags])

    script.write_text(
        IN_SMALL_DISK.format(
            volume=volume,
            copy=copy,
            extract=run("extract", f"--source={source}"),
            transform=run("transform"),
            harm=harm.format(volume=volume),
            heal=heal.format(volume=volume),
            failing=run("transform", "--verify=none", "--log=json"),
        )
    )
    result = stage("transform", prefix=(*NEW_NAMESPACE, "sh", str(script)))
    assert result.code == 3, result.stderr
    assert cause in message(result) and remedy in message(result)
    assert "Traceback" not in result.stderr
    kept = snapshot(copy / "kept")
    manifest = json.loads((copy / "kept/_larder/manifest.json").read_text())
    assert manifest["settings"]["verify"] == "header", "the earlier tree is still there"
    assert {path: digest for path, digest in snapshot(copy / "raw").items() if path in food11} == snapshot(source)
    assert sorted(digest for path, digest in kept.items() if "_larder" not in path) == sorted(snapshot(source).values())
    after = json.loads((copy / "after/_larder/manifest.json").read_text())
    assert after["settings"]["verify"] == "none", "with room again, the same command ends well"


def test_two_runs_at_once(
    stage: Stage, extract: Extract, transform: Transform, tree: ReadTree, food11: dict[str, bytes], volume: Path
) -> None:
    import fcntl

    extract(food11)
    with (volume / ".larder" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = transform()
        assert result.code == 3
        assert f"another run is using {volume}" in message(result) and "wait until" in message(result)
    assert transform().code == 0
    assert len(tree().files) == 12


@pytest.fixture
def many(extract: Extract, picture: MakePicture) -> None:
    """Enough images that a test can interrupt a run."""
    splits = ("training", "validation", "evaluation")
    extract({f"{splits[n % 3]}/{n % 11}_{n}.jpg": picture(n) for n in range(3000)})


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (signal.SIGTERM, "1"),
        (signal.SIGINT, "2"),
        pytest.param(signal.SIGTERM, "2", marks=pytest.mark.exhaustive),
        pytest.param(signal.SIGINT, "1", marks=pytest.mark.exhaustive),
    ],
)
def test_interrupted(
    stage: Stage,
    transform: Transform,
    tree: ReadTree,
    until: Until,
    many: None,
    volume: Path,
    workers: str,
    number: signal.Signals,
    held: Held,
) -> None:
    env = {"LARDER_WORKERS": workers, "LARDER_LOG": "json"}
    with held(volume / "raw/validation/1_1.jpg"):  # which is looked at after training
        process = stage.start("transform", env=env, start_new_session=True)
        until(lambda: (volume / ".larder/Food-11/new/training").exists(), "the run is at work")
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert json.loads(stderr.splitlines()[-1])["event"] == "interrupted"
    assert not (volume / "Food-11").exists()
    result = transform("--workers=2")
    assert result.code == 0 and result.events[0]["event"] == "resume"
    assert len(tree().files) == 3000


def test_killed_worker(
    stage: Stage, transform: Transform, tree: ReadTree, until: Until, many: None, volume: Path, held: Held
) -> None:
    with held(volume / "raw/validation/1_1.jpg"):
        process = stage.start("transform", env={"LARDER_WORKERS": "2", "LARDER_LOG": "json"})
        until(lambda: (volume / ".larder/Food-11/new/training").exists(), "the run is at work")
        workers_of(process)[0].kill()
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    error = json.loads(stderr.splitlines()[-1])["message"]
    assert "a worker process was killed" in error and "LARDER_WORKERS" in error
    assert transform().code == 0
    assert len(tree().files) == 3000
