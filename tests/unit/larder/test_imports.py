"""Imports at the start of a stage: nothing that only some runs need, since all runs would pay for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
STAGES = ("extract", "transform", "load", "shard", "optimize", "verify", "s3", "mount", "bench", "jupyter")
HEAVY = (
    "asyncio",
    "boto3",
    "botocore",
    "litdata",
    "matplotlib",
    "multiprocessing",
    "numpy",
    "PIL",
    "psutil",
    "ray",
    "requests",
    "torch",
    "tqdm",
    "urllib3",
    "webdataset",
    "zstandard",
)
LOOK = """
import json, runpy, sys
sys.argv = ["services", *json.loads(sys.argv[1])]
try:
    runpy.run_module(f"services.{sys.argv.pop(1)}", run_name="__main__")
finally:
    print(json.dumps([name for name in sys.modules if "." not in name]))
"""


def _imported(*words: str, **env: str) -> set[str]:
    """The packages that a stage with these flags imports."""
    ended = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(words)], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    return set(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.parametrize("stage", STAGES)
def test_checking_settings_imports_nothing_heavy(stage: str) -> None:
    assert _imported(stage, "--check", S3_BUCKET="b").isdisjoint(HEAVY)


def test_a_second_run_imports_nothing_heavy(tmp_path: Path) -> None:
    images = tmp_path / "images" / "training"
    images.mkdir(parents=True)
    (images / "0_0.jpg").write_bytes(b"no picture")
    volume = tmp_path / "volume"
    volume.mkdir()
    flags = (f"--volume={volume}", f"--source={tmp_path / 'images'}", "--workers=2")
    assert _imported("extract", *flags).isdisjoint({*HEAVY} - {"multiprocessing"})
    assert _imported("extract", *flags).isdisjoint(HEAVY)


def test_the_librarys_root_is_for_any_python() -> None:
    """`python3 -m larder` starts on a bare machine: with the standard library, and little of it."""
    look = "import sys, larder, larder.errors; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-S", "-c", look], cwd=ROOT, env={}, capture_output=True, text=True, check=True
    )
    assert {"pydantic", "argparse", "json", "tempfile"}.isdisjoint(ended.stdout.split())
