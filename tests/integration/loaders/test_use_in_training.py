"""The scripts of docs/use-in-training.md, run as a user runs them: over http and over https."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import Store
from tests.integration.bench.conftest import IMAGES
from tests.integration.loaders.conftest import Stored
from tests.tls import serve_tls

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/use-in-training.md").read_text()
SCRIPTS = {re.findall(r"# (\w+)\.py", block)[0]: block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)}
TRAIN, DDP, CHECKPOINT = "train", "train_ddp", "checkpoint"
SAVED = "checkpoint.save(after_seconds=60"


@pytest.fixture(params=["http", "https"])
def environ(request: pytest.FixtureRequest, stored: Stored, s3: Store, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings that reach the store."""
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    known |= stored.env | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if request.param == "http":
        yield known
        return
    with serve_tls(s3.endpoint, tmp_path) as tls:
        yield known | {
            "S3_ENDPOINT_URL": tls.endpoint,
            "AWS_CA_BUNDLE": str(tls.authority),
            "SSL_CERT_FILE": str(tls.authority),
        }


def write(name: str, stored: Stored, folder: Path) -> list[str]:
    """Write a script with the test's bucket, and return the command that runs it."""
    objects = stored.uris["objects"]
    text = (
        SCRIPTS[name]
        .replace("my-bucket/photos", objects.removeprefix("s3://"))
        .replace("/mnt/photos", str(stored.tree))
    )
    bucket, _, prefix = objects.removeprefix("s3://").partition("/")
    text = text.replace('"my-bucket", "photos-webdataset', f'"{bucket}", "{prefix}-webdataset')
    assert "my-bucket" not in text
    assert "photos" not in text
    (folder / f"{CHECKPOINT}.py").write_text(SCRIPTS[CHECKPOINT])
    (folder / f"{name}.py").write_text(text)
    return [sys.executable, f"{name}.py"]


def run(command: list[str], folder: Path, environ: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scripts_are_short() -> None:
    for name, script in SCRIPTS.items():
        assert len([line for line in script.splitlines() if line.strip()]) <= 40, name


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != DDP])
def test_a_script(name: str, stored: Stored, environ: dict[str, str], tmp_path: Path) -> None:
    command = write(name, stored, tmp_path)
    out = run(command, tmp_path, environ)
    assert out or name in (CHECKPOINT, "train_lightning"), "it says what it does"
    if name == TRAIN:
        assert scores_in(out) == [(str(n), str(IMAGES["validation"])) for n in range(3)]
        assert "epoch 0, batch 1 of 1: loss " in out
        assert run(command, tmp_path, environ) == "", "an epoch of one batch is saved, too"


def scores_in(out: str) -> list[tuple[str, str]]:
    """Return each epoch that has a score, with the number of its images."""
    return re.findall(r"epoch (\d): \d+ of (\d+) right", out)


def torchrun(name: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", f"{name}.py"]


def edit(path: Path, *changes: tuple[str, str]) -> None:
    """Replace texts in a script, each of which it has."""
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)


def kill_at(line: str, command: list[str], folder: Path, environ: dict[str, str]) -> str:
    """Run a command until it prints a line, kill it with its processes, and return what it has printed."""
    with subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        out = ""
        for text in process.stdout:
            out += text
            if text.startswith(line):
                for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                    one.kill()
                return out
    raise AssertionError(f"no {line!r} in {out}")


def test_two_ranks_evaluate_every_sample_once(stored: Stored, environ: dict[str, str], tmp_path: Path) -> None:
    write(DDP, stored, tmp_path)
    out = run(torchrun(DDP), tmp_path, environ)
    assert scores_in(out) == [(str(n), str(IMAGES["validation"])) for n in range(2)]


@pytest.mark.parametrize("environ", ["http"], indirect=True)
def test_killed_ranks_resume_in_mid_epoch(stored: Stored, environ: dict[str, str], tmp_path: Path) -> None:
    """Each has five batches of four; the checkpoint after the second one is the last."""
    write(DDP, stored, tmp_path)
    pause = " " * 16 + "number == 2 and (print('now', flush=True), __import__('time').sleep(60))\n"
    slow = ("batch_size=64", "batch_size=4"), (SAVED, "checkpoint.save(after_seconds=0")
    edit(tmp_path / f"{DDP}.py", *slow)
    whole = (tmp_path / f"{DDP}.py").read_text()
    edit(tmp_path / f"{DDP}.py", ("    validation.restart(0)\n", f"{pause}    validation.restart(0)\n"))
    kill_at("now", torchrun(DDP), tmp_path, environ)
    (tmp_path / f"{DDP}.py").write_text(whole)
    out = run(torchrun(DDP), tmp_path, environ)
    assert re.findall(r"epoch 0, batch (\d) of 5", out) == ["3", "4", "5"]
    assert scores_in(out) == [(str(n), str(IMAGES["validation"])) for n in range(2)]


@pytest.mark.parametrize("environ", ["http"], indirect=True)
def test_a_killed_training_resumes_in_mid_epoch(stored: Stored, environ: dict[str, str], tmp_path: Path) -> None:
    """Killed after the sixth batch of an epoch, it goes on with the samples that are left, and their numbers."""
    command, script = write(TRAIN, stored, tmp_path), tmp_path / f"{TRAIN}.py"
    shown = "print('batch', epoch, number, len(labels), flush=True)"
    edit(
        script,
        ("batch_size=64", "batch_size=4"),
        (SAVED, "checkpoint.save(after_seconds=0"),
        ("            loss = torch", f"            {shown}; loss = torch"),
    )
    whole = script.read_text()
    edit(script, (f"            {shown}", f"            {shown}; number == 7 and __import__('time').sleep(60)"))
    kill_at("batch 0 7 ", command, tmp_path, environ)
    script.write_text(whole)
    out = run(command, tmp_path, environ)
    first = [(int(number), int(size)) for number, size in re.findall(r"batch 0 (\d+) (\d+)", out)]
    assert [number for number, _ in first] == list(range(7, 11))
    assert sum(size for _, size in first) == IMAGES["training"] - 6 * 4
    assert sum(int(size) for size in re.findall(r"batch 1 \d+ (\d+)", out)) == IMAGES["training"]


@pytest.mark.parametrize("environ", ["http"], indirect=True)
@pytest.mark.parametrize("name", [TRAIN, DDP])
def test_a_kill_during_validation_loses_no_score(
    stored: Stored, environ: dict[str, str], tmp_path: Path, name: str
) -> None:
    write(name, stored, tmp_path)
    command, script = torchrun(name) if name == DDP else [sys.executable, f"{name}.py"], tmp_path / f"{name}.py"
    edit(script, ("batch_size=64", "batch_size=4"))
    whole = script.read_text()
    edit(script, ("validation.restart(0)", "print('validates', flush=True); __import__('time').sleep(60)"))
    before = kill_at("validates", command, tmp_path, environ)
    assert "epoch 0, batch 1 of" in before
    script.write_text(whole)
    out = run(command, tmp_path, environ)
    assert "epoch 0, batch" not in out
    assert "epoch 1, batch 1 of" in out
    epochs = 2 if name == DDP else 3
    assert scores_in(out) == [(str(n), str(IMAGES["validation"])) for n in range(epochs)]
