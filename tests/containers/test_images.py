"""Every image: its user, labels, rights and size."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from larder import __version__

STAGES = ("extract", "transform", "load", "index", "shard", "optimize", "verify", "s3", "mount", "bench", "jupyter")
ROOTS = {"mount": "00000000002000c2"}
"""Who mounts is root at first, with SYS_ADMIN, DAC_OVERRIDE, SETUID and SETGID of root's capabilities."""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def inspect(image: str) -> dict[str, Any]:
    text = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=True).stdout
    return dict(json.loads(text)[0])


@pytest.mark.parametrize("name", STAGES)
def test_the_user_is_numeric_and_not_root(name: str) -> None:
    assert inspect(f"larder-{name}:{__version__}")["Config"]["User"] == ("0:0" if name in ROOTS else "1000:1000")


@pytest.mark.parametrize("name", STAGES)
def test_the_entrypoint_is_the_stage(name: str) -> None:
    assert inspect(f"larder-{name}:{__version__}")["Config"]["Entrypoint"] == ["python", "-m", f"services.{name}"]


@pytest.mark.parametrize("name", STAGES)
def test_labels_say_what_it_is(name: str) -> None:
    labels = inspect(f"larder-{name}:{__version__}")["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"larder {name}"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.revision"]


@pytest.mark.parametrize(
    ("name", "megabytes"),
    [
        ("extract", 550),  # pyarrow, which reads Parquet: 170
        ("transform", 350),
        ("load", 350),
        ("s3", 350),
        ("mount", 350),
        ("verify", 700),
        ("index", 900),
        ("shard", 600),
    ],  # Ray: 264
)
def test_it_adds_little_to_its_base(name: str, megabytes: int) -> None:
    history = ["docker", "image", "history", "--human=false", "--format", "{{.Size}}", f"larder-{name}:{__version__}"]
    layers = subprocess.run(history, capture_output=True, check=True, text=True).stdout.split()
    base = next(int(size) for size in reversed(layers) if int(size))  # its only layer; the base may be absent
    assert sum(map(int, layers)) - base < megabytes * 1e6


def test_jupyter_adds_little_to_the_layers_that_it_shares_with_bench() -> None:
    shared = set(inspect(f"larder-bench:{__version__}")["RootFS"]["Layers"])
    show = ("--human=false", "--format", "{{.Size}} {{.CreatedBy}}")
    history = ["docker", "image", "history", *show, f"larder-jupyter:{__version__}"]
    lines = subprocess.run(history, capture_output=True, check=True, text=True).stdout.splitlines()[::-1]
    made = [line.split() for line in lines]
    filled = [int(words[0]) for words in made if words[0] != "0" or words[1:2] == ["WORKDIR"]]
    layers = inspect(f"larder-jupyter:{__version__}")["RootFS"]["Layers"]
    own = [size for size, layer in zip(filled, layers, strict=True) if layer not in shared]
    assert max(size for size, layer in zip(filled, layers, strict=True) if layer in shared) > 500e6, "torch"
    assert sum(own) < 600e6


@pytest.mark.parametrize("name", ["bench", "jupyter"])
def test_images_that_decode_have_the_jpeg_kernel(stage: Run, name: str) -> None:
    load = "from larder.stream.kernel import JpegKernel; assert JpegKernel.load()"
    stage(name, "-c", load, options=("--entrypoint", "python"), check=True)


@pytest.mark.parametrize("name", STAGES)
def test_help_names_every_flag_with_its_variable(stage: Run, name: str) -> None:
    ended = stage(name, "--help", check=True)
    assert "LARDER_LOG" in ended.stdout
    assert "Exit codes" in ended.stdout


@pytest.mark.parametrize("name", STAGES)
def test_a_wrong_setting_ends_with_2_and_names_every_fault(stage: Run, name: str) -> None:
    ended = stage(name, "--bogus", "--workers=-1")
    assert ended.returncode == 2
    assert "--bogus" in ended.stderr
    assert "--workers" in ended.stderr
    assert "next step" in ended.stderr


@pytest.mark.parametrize("name", STAGES)
def test_the_root_file_system_is_read_only_and_no_capability_is_left(stage: Run, name: str) -> None:
    probe = "touch /opt/larder/x; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status"
    ended = stage(name, "-c", probe, options=("--entrypoint", "bash"))
    assert "Read-only file system" in ended.stderr
    assert f"CapEff:\t{ROOTS.get(name, '0000000000000000')}" in ended.stdout
    assert "NoNewPrivs:\t1" in ended.stdout
