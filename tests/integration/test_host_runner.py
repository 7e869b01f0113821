"""make with RUNNER=host: the pipeline as processes, for machines without a container engine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from larder.dataset import DEFAULT, demo_volume_of
from tests.conftest import free_ports

ROOT = Path(__file__).parents[2]
SMALL = ("LARDER_SAMPLE_IMAGES=110", "LARDER_BATCH_SIZE=16", "LARDER_WARMUP_BATCHES=1")


def make(home: Path, *words: str, through: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run make as a user without an engine does: nothing answers at the engine's address."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [*through, "make", *words, f"LARDER_HOME={home}/home", f"LARDER_RESULTS={home}/results"],
        cwd=ROOT,
        env=kept | {"DOCKER_HOST": f"unix://{home}/no-engine.sock", "LARDER_LOG": "line"},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )


def test_demo_without_an_engine(tmp_path: Path) -> None:
    ended = make(tmp_path, "demo", *SMALL)
    assert ended.returncode == 0, ended.stderr
    assert "runner: host" in ended.stderr
    assert "imgs/s" in ended.stdout
    assert ended.stdout.splitlines()[-1] == f"The records are in {tmp_path}/results/"
    record = json.loads(next((tmp_path / "results").glob("imagefolder_local-*.json")).read_text())
    assert record["dataset"]["samples"]["training"] == 67
    same = ("LARDER_SOURCE=sample", f"LARDER_DATA_VOLUME={demo_volume_of(DEFAULT)}", *SMALL)
    again = make(tmp_path, "etl-local", *same)
    assert again.stderr.count("up to date") == 2


def test_a_stage_that_fails_fails_make(tmp_path: Path) -> None:
    ended = make(tmp_path, "etl-local", "LARDER_SOURCE=no-such-file.zip")
    assert ended.returncode != 0
    assert "no-such-file.zip does not exist" in ended.stderr
    assert "transform" not in ended.stderr


def test_a_misspelt_setting_is_named(tmp_path: Path) -> None:
    ended = make(tmp_path, "etl-local", "LARDER_SORCE=photos.zip")
    assert ended.returncode != 0
    assert "LARDER_SORCE" in ended.stderr


def test_clean_local_asks_first(tmp_path: Path) -> None:
    volume = tmp_path / "home/volumes/food11_local_baseline"
    volume.mkdir(parents=True)
    assert make(tmp_path, "clean-local").returncode != 0
    assert volume.exists()
    assert make(tmp_path, "clean-local", "YES=1").returncode == 0
    assert not volume.exists()


def test_make_alone_prints_the_targets(tmp_path: Path) -> None:
    ended = make(tmp_path)
    assert ended.returncode == 0
    for target in ("demo", "test", "etl-local", "verify", "bench", "benchmarks"):
        assert f"  {target} " in ended.stdout


@pytest.mark.exhaustive
def test_packs_without_an_engine(tmp_path: Path) -> None:
    """Test the store of s3-up, both pipelines, and the removal of their volumes."""
    store = [f"LARDER_STORE_DIR={tmp_path}/store"]
    try:
        assert make(tmp_path, "etl-local", "LARDER_SOURCE=sample", "LARDER_SAMPLE_IMAGES=60", *store).returncode == 0
        early = make(tmp_path, "etl-wds", *store)
        assert early.returncode != 0
        assert "S3_BUCKET is not set" in early.stderr
        assert "shard: " not in early.stderr, "nothing is packed for a store that isn't there"
        assert make(tmp_path, "s3-keys").returncode == 0
        keys = tmp_path / "home/s3-host.env"
        keys.write_text(keys.read_text().replace(":8333", f":{free_ports(1)[0]}"))  # others may have theirs there
        for target in ("s3-up", "etl-wds", "etl-lit"):
            ended = make(tmp_path, target, "LARDER_SOURCE=sample", "LARDER_SAMPLE_IMAGES=60", *store)
            assert ended.returncode == 0, ended.stderr
        staged = [tmp_path / "home/volumes" / name for name in ("food11-webdataset_wds_out", "food11-litdata_lit_out")]
        assert (staged[0] / "Food-11-webdataset/training/shard-000000.tar").exists()
        assert (staged[1] / "Food-11-litdata/training/index.json").exists()
        ended = make(tmp_path, "verify", "LARDER_VERIFY_SAMPLES=all", *store)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("60 of 60") == 7  # no single objects are loaded here
        (staged[0] / "Food-11-webdataset/training/shard-000000.tar").unlink()
        ended = make(tmp_path, "verify", *store)
        assert "Error 3" in ended.stderr
        assert "the chain breaks at shards: a file in the index is missing" in ended.stderr
        ended = make(tmp_path, "etl-wds", *store)  # as the message says
        assert ended.returncode == 0, ended.stderr
        ended = make(tmp_path, "clean", "YES=1", "LARDER_VERIFY_REMOTE=list", *store)
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.count("verified by size and checksum") == 2
        assert not any(folder.exists() for folder in staged)
    finally:
        make(tmp_path, "s3-down", *store)


@pytest.mark.parametrize("runner", ["host", "compose"])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("LARDER_JUPYTER_BIND=localhost", "LARDER_JUPYTER_BIND=localhost is not an IPv4 address"),
        ("LARDER_JUPYTER_BIND=::1", "LARDER_JUPYTER_BIND=::1 is not an IPv4 address"),
        ("LARDER_JUPYTER_BIND=127.0.0.256", "LARDER_JUPYTER_BIND=127.0.0.256 is not an IPv4 address"),
        ("LARDER_JUPYTER_BIND=127.0.0.01", "LARDER_JUPYTER_BIND=127.0.0.01 is not an IPv4 address"),
        ("LARDER_JUPYTER_PORT=99999", "LARDER_JUPYTER_PORT=99999 must be 65535 or less"),
        ("LARDER_JUPYTER_PORT=0", "LARDER_JUPYTER_PORT=0 must be 1 or more"),
        ("LARDER_JUPYTER_PORT=http", "LARDER_JUPYTER_PORT=http must be a whole number"),
    ],
)
def test_where_jupyter_cannot_listen(tmp_path: Path, runner: str, setting: str, message: str) -> None:
    ended = make(tmp_path, "jupyter", setting, f"RUNNER={runner}", f"LARDER_WORKSPACE={tmp_path}/work")
    assert ended.returncode != 0
    assert ended.stderr.startswith("error: ") and f"{message}\n  next step: " in ended.stderr
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("runner", ["host", "compose"])
@pytest.mark.parametrize("name", ["in the way", "in the way/work"])
def test_a_file_in_the_workspaces_place(tmp_path: Path, runner: str, name: str) -> None:
    (tmp_path / "in the way").write_text("a file")
    ended = make(tmp_path, "jupyter", f"RUNNER={runner}", f"LARDER_WORKSPACE={tmp_path / name}")
    assert ended.returncode != 0
    assert ended.stderr.startswith(f"error: the workspace {tmp_path / name} can't be made: ")
    assert "next step: move away what is in its place; or set LARDER_WORKSPACE" in ended.stderr
    assert "mkdir:" not in ended.stderr


@pytest.mark.parametrize("runner", ["host", "compose"])
def test_a_workspace_that_may_not_be_made(tmp_path: Path, runner: str) -> None:
    (tmp_path / "theirs").mkdir(mode=0o555)
    place = tmp_path / "theirs" / "work"
    powerless = () if os.geteuid() else ("setpriv", "--bounding-set=-dac_override", "--")  # root may write everywhere
    ended = make(tmp_path, "jupyter", f"RUNNER={runner}", f"LARDER_WORKSPACE={place}", through=powerless)
    assert ended.returncode != 0
    assert ended.stderr.startswith(f"error: the workspace {place} can't be made: Permission denied\n")
    assert f"next step: sudo install -d -o {os.getuid() or 1000} -g {os.getgid() or 1000} {place}; or" in ended.stderr
