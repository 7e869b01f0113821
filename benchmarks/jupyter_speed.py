"""Does a notebook's timed loop measure the same rate as `make bench`, and how soon does JupyterLab answer?"""

from __future__ import annotations

import json
import os
import tempfile
import time
import uuid
from pathlib import Path

from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from benchmarks.harness import (
    ROOT,
    WORK,
    BenchmarkReport,
    ResourceUsage,
    engine_answers,
    interleave,
    run,
    run_stage,
    run_stage_on_volume,
)

ROUNDS = 5
CELL = "from services.jupyter import lab\nrecord = lab.bench('imagefolder_local')"


def measure() -> BenchmarkReport:
    """Measure imagefolder_local by bench and by a notebook's cell, and the seconds until JupyterLab answers."""
    report = BenchmarkReport("a notebook's loop against bench, and JupyterLab's start")
    with tempfile.TemporaryDirectory(dir=WORK, prefix="jupyter-") as folder:
        place = Path(folder)
        volume = place / "volume"
        volume.mkdir()
        run_stage_on_volume("extract", volume, "--source", "sample", "--sample-images", "2000")
        run_stage_on_volume("transform", volume)
        settings = {"FOOD11_DATA_DIR": str(volume / "Food-11")}

        def bench(_: int) -> ResourceUsage:
            command = ["--arm", "imagefolder_local", "--results", str(place / "bench")]
            return run_stage("bench", settings, *command)

        def notebook(_: int) -> ResourceUsage:
            begin = time.perf_counter()
            cells = new_notebook(cells=[new_code_cell(CELL)])  # type: ignore[no-untyped-call]
            os.environ.update(settings | {"LARDER_RESULTS": str(place / "notebook"), "PYTHONPATH": str(ROOT)})
            NotebookClient(cells, timeout=600, kernel_name="python3").execute(cwd=str(place))
            return ResourceUsage(time.perf_counter() - begin, 0)

        interleave(ROUNDS, {"bench": bench, "notebook": notebook})
        by_bench, by_notebook = _rates(place / "bench"), _rates(place / "notebook")
        report.add("notebook / bench (images/s)", [a / b for a, b in zip(by_notebook, by_bench, strict=True)])
        report.add("bench's own spread: largest / smallest", [max(by_bench) / min(by_bench)])
        starts = [_start(place, number) for number in range(ROUNDS)]
        report.add("make jupyter, host runner: until it answers", starts, "s", at_most=15.0)
        if engine_answers():
            report.add("make jupyter, built image: until it answers", _starts_in_container(place), "s", at_most=15.0)
        report.rounds = [{"bench": a, "notebook": b} for a, b in zip(by_bench, by_notebook, strict=True)]
    return report


def _rates(folder: Path) -> list[float]:
    """Return the imgs/s of each round after the warm-up."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [record["imgs/s"] for record in records][1:]


def _start(folder: Path, number: int) -> float:
    (folder / "token").write_text("a-token")
    settings = {
        "LARDER_WORKSPACE": str(folder / "workspace"),
        "LARDER_JUPYTER_TOKEN_FILE": str(folder / "token"),
        "LARDER_JUPYTER_DIR": str(folder / "jupyter"),
        "LARDER_JUPYTER_PORT": str(18800 + number),
    }
    seconds = run_stage("jupyter", settings, "--task", "up").seconds
    run_stage("jupyter", settings, "--task", "down")
    return seconds


def _starts_in_container(folder: Path) -> list[float]:
    """Return the seconds of `make jupyter`, which first checks whether the image is up to date."""
    name = f"larder-benchmark-{uuid.uuid4().hex[:8]}"
    settings = {
        "RUNNER": "compose",
        "COMPOSE_PROJECT_NAME": name,
        "LARDER_DATA_VOLUME": name,
        "LARDER_HOME": str(folder / "home"),
        "LARDER_RESULTS": str(folder / "results"),
        "LARDER_WORKSPACE": str(folder / "work"),
        "LARDER_JUPYTER_PORT": "18800",
    }
    run(["make", "build-jupyter"], environ=settings)
    try:
        return [_start_in_container(settings) for _ in range(ROUNDS)]
    finally:
        run(["docker", "network", "rm", f"{name}_default"])
        run(["docker", "volume", "rm", f"{name}_bench_cache", name])


def _start_in_container(settings: dict[str, str]) -> float:
    seconds = run(["make", "jupyter"], environ=settings).seconds
    run(["make", "jupyter-down"], environ=settings)
    return seconds
