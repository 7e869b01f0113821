"""After SIGKILL at any moment, the next run gives the result of an undisturbed one."""

from __future__ import annotations

import gc
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from larder.progress import Reporter
from services.transform.settings import TransformSettings
from services.transform.transform import transform as work
from tests.integration.conftest import MakePicture, Stage
from tests.integration.transform.conftest import Extract, ReadTree, Snapshot, Transform

LOOKED_AT = ("os.", "shutil.", "open", "sqlite3.", "ctypes.dlsym")


@pytest.mark.parametrize(("workers", "kills"), [("1", 12), pytest.param("2", 8, marks=pytest.mark.exhaustive)])
def test_killed_at_random_moments(
    stage: Stage,
    extract: Extract,
    transform: Transform,
    tree: ReadTree,
    picture: MakePicture,
    volume: Path,
    workers: str,
    kills: int,
) -> None:
    splits = ("training", "validation", "evaluation")
    files = {f"{splits[n % 3]}/{n % 11}_{n}.jpg": picture(n) for n in range(600)}
    extract(files | {"training/0_bad.jpg": b"damaged"})
    flags = ("--max-rejects=1", f"--workers={workers}")
    undisturbed = transform(*flags)
    assert undisturbed.code == 0
    whole, moments = tree(), random.Random(11)
    while kills > 0:
        for name in ("Food-11", "rejects"):
            shutil.rmtree(volume / name)
        for _ in range(moments.randint(1, 2)):
            process = stage.start("transform", *flags)
            try:
                process.wait(moments.uniform(0, undisturbed.seconds))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
            kills -= process.returncode == -signal.SIGKILL
            if (volume / "Food-11").exists():
                assert tree() == whole, "what can be seen is whole"
        result = transform(*flags)
        assert result.code == 0, result.stderr
        assert tree() == whole
        assert (volume / "rejects" / "files" / "training" / "0_bad.jpg").read_bytes() == b"damaged"


def in_child(volume: Path, die_at: int | None) -> int:
    """Run the stage in a fork, which SIGKILL ends at audit event number `die_at`. Returns the number of events."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def count_and_die(event: str, _: object) -> None:
            nonlocal count
            if event.startswith(LOOKED_AT):
                count += 1
                if count == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        gc.freeze()  # else garbage collection touches, and so copies, all memory of the test run
        try:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (the child ends without unwinding)
            sys.addaudithook(count_and_die)
            flags = [f"--volume={volume}", "--workers=1", "--max-rejects=1"]
            work(TransformSettings.load("transform", flags, {}), Reporter("transform", "line"))
            os.write(writing, str(count).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        text = answer.read()
    if die_at is None:
        assert status == 0
    return int(text or 0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("earlier", [False, True], ids=["first-run", "over-an-earlier-tree"])
def test_killed_before_every_step(
    extract: Callable[..., Path],
    tree: ReadTree,
    food11: dict[str, bytes],
    volume: Path,
    earlier: bool,
    transform: Transform,
    snapshot: Snapshot,
) -> None:
    """Kill before opening, linking, renaming and removing files, at points spread over the whole run."""
    few = {path: food11[path] for path in ("training/3_0.jpg", "validation/3_0.jpg", "evaluation/10_1.jpg")}
    raw = extract(few | {"training/0_bad.jpg": b""})  # rejected however closely it is looked at
    before = snapshot(raw)
    assert in_child(volume, None)
    whole, other, spare = tree(), None, volume.parent / "spare"
    if earlier:
        assert transform("--verify=none", "--max-rejects=1").code == 0
        other = tree()
        shutil.copytree(volume, spare, copy_function=os.link)

    def reset() -> None:
        for name in ("Food-11", "rejects"):
            shutil.rmtree(volume / name)
            if earlier:
                shutil.copytree(spare / name, volume / name, copy_function=os.link)

    reset()
    steps = in_child(volume, None)
    assert steps > 50
    for step in range(2 if earlier else 1, steps + 1, steps // 24):
        reset()
        in_child(volume, step)
        if (volume / "Food-11").exists():
            assert tree() in (whole, other), f"step {step}"
        assert in_child(volume, None)
        assert tree() == whole, f"step {step}"
        set_aside = {path.name for path in (volume / "rejects").rglob("*") if path.is_file()}
        assert set_aside == {"0_bad.jpg", "rejects.jsonl"}
    assert snapshot(raw) == before
