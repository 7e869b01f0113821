"""`provision` in a container, as on a machine without a Python for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from larder import __version__
from tests.containers.conftest import Run

IMAGE = f"larder-provision:{__version__}"


def test_a_folder_s_declaration_is_read_in_the_container_as_the_user(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "lab"\n[sites]\ncompute = { cloud = "kvm" }\n')
    (tmp_path / "clouds.yaml").write_text("clouds:\n  chi: {}\n")
    settings = {"RUNNER": "compose", "HOME": str(tmp_path), "OS_CLIENT_CONFIG_FILE": "clouds.yaml"}
    root = str(Path(__file__).parents[2])
    command = ("python3", "-m", "larder", "provision")
    helps = run(*command, "--help", folder=tmp_path, PYTHONPATH=root, **settings)
    assert helps.returncode == 0 and "usage: python3 -m larder provision" in helps.stdout, helps.stderr
    ended = run(*command, "up", "--file", "mine.toml", folder=tmp_path, PYTHONPATH=root, **settings)
    assert ended.returncode == 2 and "kvm was not found" in ended.stderr, ended.stderr
    assert (tmp_path / ".larder/provision/lab/lock").exists()
    inside = ("docker", "run", "--rm", IMAGE, "sh", "-c", "ssh -V && ssh-keyscan 2>&1 | grep -q usage")
    assert "OpenSSH" in subprocess.run(inside, capture_output=True, text=True, check=True).stderr
