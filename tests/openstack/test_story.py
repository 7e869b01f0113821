"""The story of a lab: a volume outlives its server. Every command is the one that a person types.

The cloud is the real OpenStack of the box; its servers are QEMU guests (hypervisor.py), so SSH, the disk and the host
scripts are real, too. The file is written through SSH as a notebook would be saved: JupyterLab's image is gigabytes,
too much for an emulated machine; that the image saves into the workspace is a test of its own stage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.openstack.conftest import Site
from tests.openstack.guest import BOOT_SECONDS, make_key
from tests.openstack.hypervisor import Hypervisor

NOTEBOOK = json.dumps({"cells": [{"cell_type": "markdown", "source": ["kept"]}], "nbformat": 4, "nbformat_minor": 5})
LAB = """
[server]
key = "lab"
private_key = "{key}"

[floating_ip]

[[security_group]]
name = "allow-ssh"
ports = [22]
sources = ["0.0.0.0/0"]

[[volume]]
name = "block"
gib = 1
mount = "/mnt/block"

[host]
docker = false
rclone = false
tools = []

[limits]
ssh = {seconds}
"""


@pytest.fixture
def lab(site: Site, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose servers are machines."""
    key = make_key(tmp_path)
    site.cloud.compute.create_keypair(name="lab", public_key=key.with_suffix(".pub").read_text().strip())
    site.declare(LAB.format(key=key, seconds=2 * BOOT_SECONDS))
    machines = Hypervisor(site.cloud, site.admin, tmp_path_factory.mktemp("machines"))
    yield site
    machines.close()


def on_server(lab: Site, command: str) -> str:
    """What `ssh` prints; it gives a person a terminal where there is one."""
    return lab.succeeds("ssh", command).replace("\r", "")


def test_file_outlives_the_server(lab: Site) -> None:
    lab.succeeds("volume", "create", "block")
    lab.succeeds("up")
    (volume,), (first,) = lab.things["volumes"], lab.things["servers"]
    assert on_server(lab, "findmnt -no FSTYPE /mnt/block") == "ext4\n"
    on_server(lab, f"printf %s '{NOTEBOOK}' >/mnt/block/workspace/lab.ipynb && sync")
    assert "nothing was to do" in lab.run("up").err

    mounted = lab.run("volume", "detach", "block")
    assert mounted.code == 3 and "is mounted at /mnt/block" in mounted.err

    lab.succeeds("down", "--yes")
    assert (lab.things["servers"], lab.things["volumes"]) == ([], [volume])

    lab.succeeds("up")
    (second,) = lab.things["servers"]
    assert second != first
    assert json.loads(on_server(lab, "cat /mnt/block/workspace/lab.ipynb")) == json.loads(NOTEBOOK)

    lab.succeeds("volume", "grow", "block", "--gib", "2")
    assert int(on_server(lab, "df --output=size -BM /mnt/block | tail -n 1 | tr -d M")) > 1900

    lab.succeeds("volume", "unmount", "block")
    lab.succeeds("volume", "detach", "block")
    lab.succeeds("volume", "attach", "block")
    lab.succeeds("volume", "mount", "block")
    assert "kept" in on_server(lab, "cat /mnt/block/workspace/lab.ipynb")

    lab.succeeds("volume", "unmount", "block")
    lab.succeeds("volume", "detach", "block")
    lab.succeeds("volume", "delete", "block", "--yes")
    assert lab.things["volumes"] == []
    lab.succeeds("down", "--yes")
    wait_until(lambda: not lab.counts, "nothing is left")
