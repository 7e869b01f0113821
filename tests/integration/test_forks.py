"""A forked stage gives the same results as a new interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import Stage

STAGES = ("bench", "extract", "jupyter", "load", "mount", "optimize", "s3", "shard", "transform", "verify")


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(
    "flag", ["--no-such", *(pytest.param(flag, marks=pytest.mark.exhaustive) for flag in ("--version", "--help"))]
)
def test_a_fork_does_as_a_new_interpreter(stage: Stage, name: str, flag: str) -> None:
    forked, fresh = (stage(name, flag, fresh=fresh) for fresh in (False, True))
    assert forked[:3] == fresh[:3]
    assert forked.code == (2 if flag == "--no-such" else 0)


@pytest.mark.exhaustive
def test_the_same_bytes_from_another_interpreter(stage: Stage, volume: Path) -> None:
    """Another interpreter hashes strings differently, so results must not depend on the order of a set."""
    for name, flags in (("extract", ["--source=sample", "--sample-images=33"]), ("transform", []), ("shard", [])):
        children = []
        for fresh in (False, True):
            ended = stage(name, *flags, env={"LARDER_FORCE": "true", "LARDER_WORKERS": ""}, fresh=fresh)
            assert ended.code == 0, ended.stderr
            files = (path for path in volume.rglob("*") if path.is_file() and path.name != "run.json")
            children.append({path: path.read_bytes() for path in files if ".larder" not in path.parts})
        assert children[0] == children[1]


def test_a_fork_is_a_process_of_its_own(stage: Stage, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "held.zip")
    process = stage.start("extract", f"--source={tmp_path}/held.zip", start_new_session=True)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.01)
    assert process.poll() is None and psutil.Process(process.pid).ppid() != os.getpid()
    assert os.getsid(process.pid) == process.pid
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert process.communicate() == ("", "")
