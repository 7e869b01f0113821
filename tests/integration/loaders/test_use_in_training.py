"""The scripts of docs/use-in-training.md, run as a user runs them: over http and over https."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Store
from tests.integration.bench.conftest import IMAGES
from tests.integration.loaders.conftest import Stored
from tests.tls import serve_tls

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/use-in-training.md").read_text()
SCRIPTS = {re.findall(r"# (\w+)\.py", block)[0]: block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)}
TRAIN, DDP = "train", "train_ddp"


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
    out = run(write(name, stored, tmp_path), tmp_path, environ)
    if name == TRAIN:
        assert re.findall(r"epoch (\d): \d+ of (\d+) right", out) == [
            (str(n), str(IMAGES["validation"])) for n in range(3)
        ]


def test_two_ranks_evaluate_every_sample_once(stored: Stored, environ: dict[str, str], tmp_path: Path) -> None:
    write(DDP, stored, tmp_path)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", f"{DDP}.py"]
    out = run(torchrun, tmp_path, environ)
    assert re.findall(r"of (\d+) right", out) == [str(IMAGES["validation"])] * 2


@pytest.mark.parametrize("environ", ["http"], indirect=True)
def test_a_killed_training_resumes_in_mid_epoch(stored: Stored, environ: dict[str, str], tmp_path: Path) -> None:
    """Killed after the second checkpoint of an epoch, it goes on with the samples that are left."""
    command = write(TRAIN, stored, tmp_path)
    script = tmp_path / f"{TRAIN}.py"
    slow = script.read_text().replace("batch_size=64", "batch_size=4").replace("% 100", "% 3")
    slow = slow.replace(
        "            save()",
        "            save()\n            print('saved', number, flush=True)\n            time.sleep(0.5)",
        1,
    )
    script.write_text("import time\n" + slow)
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        while process.stdout.readline() != "saved 6\n":
            pass
        process.send_signal(signal.SIGKILL)
    script.write_text(
        script.read_text().replace("loss = torch", "print('batch', epoch, len(labels), flush=True); loss = torch", 1)
    )
    out = run(command, tmp_path, environ)
    first = [int(n) for n in re.findall(r"batch 0 (\d+)", out)]
    assert sum(first) == IMAGES["training"] - 6 * 4
    assert sum(int(n) for n in re.findall(r"batch 1 (\d+)", out)) == IMAGES["training"]
