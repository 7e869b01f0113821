"""Run the real stage over a real tree, as a separate process."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from larder.contract import read_manifest
from tests.conftest import Until
from tests.integration.bench.conftest import RunBench, StartBench


def test_measures_an_epoch_and_keeps_the_record(run_bench: RunBench, tree: Path, tmp_path: Path) -> None:
    code, out, err = run_bench()
    assert code == 0, err
    (path,) = (tmp_path / "results").iterdir()
    record = json.loads(path.read_text())
    assert path.name.startswith("imagefolder_local-2")
    assert path.name.endswith("Z.json")
    assert (record["arm"], record["images"], record["batches"]) == ("imagefolder_local", 40, 5)
    assert record["imgs/s"] == pytest.approx(40 / record["seconds"], rel=1e-3)
    assert record["batches/s"] == pytest.approx(5 / record["seconds"], rel=1e-3)
    assert record["avg_batch_s"] == pytest.approx(record["seconds"] / 5, rel=1e-3)
    waits = record["batch_wait_s"]
    assert 0 <= waits["p50"] <= waits["p90"] <= waits["p99"] <= waits["max"] <= record["seconds"]
    assert record["cpu_s_per_1000_imgs"] > 0
    assert record["peak_memory_bytes"] > 100e6
    assert record["dataset"]["manifest_sha256"] == read_manifest(tree, made_by="").digest()
    assert record["dataset"]["samples"] == {"training": 40, "validation": 12}
    assert record["settings"]["workers"] == 2
    assert record["provenance"]["torch"]
    assert f"{record['imgs/s']:,.1f}" in out
    assert f"record {path.name}" in err
    assert "make bench" in err


def test_json_for_machines(run_bench: RunBench, tmp_path: Path) -> None:
    code, out, err = run_bench("--batches", "3", "--split", "training", LARDER_LOG="json")
    assert code == 0, err
    (path,) = (tmp_path / "results").iterdir()
    record = json.loads(out)  # one line, and nothing else
    assert record == json.loads(path.read_text())
    assert (record["images"], record["batches"]) == (24, 3)
    events = [json.loads(line) for line in err.splitlines()]
    assert [event["event"] for event in events][-2:] == ["done", "next"]
    assert events[-2]["imgs/s"] == record["imgs/s"]


def test_arm_and_exit_codes_are_in_the_help(run_bench: RunBench) -> None:
    code, out, _ = run_bench("--help")
    assert code == 0
    assert "imagefolder_local" in out
    assert "LARDER_BENCH_BATCHES" in out


def drop_manifest(tree: Path) -> None:
    (tree / "_larder" / "manifest.json").unlink()


def drop_image(tree: Path) -> None:
    (tree / "training" / "class_00" / "0.jpg").unlink()


def add_image(tree: Path) -> None:
    (tree / "training" / "class_00" / "extra.jpg").write_bytes(b"")


def drop_split(tree: Path) -> None:
    (tree / "training").rename(tree / "gone")


def damage_image(tree: Path) -> None:
    path = tree / "training" / "class_01" / "1.jpg"
    path.write_bytes(path.read_bytes()[:1000])


def rename_artifact(tree: Path) -> None:
    path = tree / "_larder" / "manifest.json"
    path.write_text(path.read_text().replace('"tree"', '"raw"'))


@pytest.mark.parametrize(
    ("harm", "flags", "code", "parts"),
    [
        pytest.param(drop_manifest, [], 3, ["holds no finished data", "run `make etl-local`"], id="no-manifest"),
        pytest.param(rename_artifact, [], 3, ["holds 'raw' data", "FOOD11_DATA_DIR"], id="not-a-tree"),
        pytest.param(drop_image, [], 3, ["39 images", "says 40", "training/class_00/0.jpg is missing"], id="missing"),
        pytest.param(add_image, [], 3, ["41 images", "says 40", "make etl-local"], id="one-too-many"),
        pytest.param(drop_split, [], 3, ["training holds no images", "make etl-local"], id="no-folder"),
        pytest.param(damage_image, [], 3, ["class_01/1.jpg can't be read", "next step"], id="damaged"),
        pytest.param(None, ["--split", "test"], 2, ["FOOD11_SPLIT='test'", "training, validation"], id="no-split"),
        pytest.param(None, ["--batch-size", "20"], 2, ["it takes 3 batches", "has 2 (40 images"], id="short-epoch"),
        pytest.param(None, ["--arm", "nope"], 2, ["--arm='nope'", "imagefolder_local"], id="no-such-arm"),
        pytest.param(None, ["--results", "/dev/null/x"], 3, ["LARDER_RESULTS='/dev/null/x'"], id="results-unwritable"),
    ],
)
def test_errors_name_a_remedy_and_leave_no_record(
    run_bench: RunBench,
    tree: Path,
    tmp_path: Path,
    harm: Callable[[Path], None] | None,
    flags: list[str],
    code: int,
    parts: list[str],
) -> None:
    if harm:
        harm(tree)
    returned, out, err = run_bench(*flags)
    assert (returned, out) == (code, ""), err
    assert "Traceback" not in err
    assert all(part in err for part in parts), err
    assert not (tmp_path / "results").exists() or list((tmp_path / "results").iterdir()) == []


@pytest.mark.parametrize(
    ("who", "sent", "code", "part"),
    [
        pytest.param("worker", signal.SIGKILL, 3, "worker process was lost", id="worker-killed"),
        pytest.param("stage", signal.SIGTERM, 130, "interrupted", id="stage-stopped"),
    ],
)
def test_ends_cleanly_when_killed(
    start_bench: StartBench,
    tree: Path,
    tmp_path: Path,
    until: Until,
    who: str,
    sent: signal.Signals,
    code: int,
    part: str,
) -> None:
    image = block_image(tree)
    with start_bench("--workers", "1") as process, held_by_reader(image):
        stage = psutil.Process(process.pid)
        (worker,) = stage.children()
        (worker if who == "worker" else stage).send_signal(sent)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, ""), err
    assert part in err
    assert "Traceback" not in err
    until(lambda: not worker.is_running(), "the worker is gone")
    assert list((tmp_path / "results").iterdir()) == []


def block_image(tree: Path) -> Path:
    """Put a pipe in the place of an image: whoever reads it waits."""
    path = tree / "training" / "class_00" / "0.jpg"
    path.unlink()
    os.mkfifo(path)
    return path


@contextmanager
def held_by_reader(pipe: Path) -> Iterator[None]:
    """Wait until somebody reads the pipe, and keep him waiting."""
    until = time.monotonic() + 60
    while True:
        try:
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)  # refused while nobody reads
            break
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
    try:
        yield
    finally:
        os.close(writer)
