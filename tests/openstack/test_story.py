"""The story of a lab: a volume outlives its server. Every command is the one that a person types.

The cloud is the real OpenStack of the box; its servers are QEMU guests (hypervisor.py), so SSH, the disk and the host
scripts are real, too. Jupyter is the one of the guest's distribution: the image of compose/jupyter.yaml has gigabytes,
too much for an emulated machine; that it saves into the workspace is a test of its own stage.
"""

from __future__ import annotations

import json
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import free_ports, wait_until
from tests.openstack.conftest import Site
from tests.openstack.guest import BOOT_SECONDS, make_key
from tests.openstack.hypervisor import Hypervisor
from tests.openstack.notebook import Jupyter

WORKSPACE = "/mnt/block/workspace"
CELL = "open('persisted.txt', 'w').write('kept')"
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


@contextmanager
def jupyter(lab: Site) -> Iterator[Jupyter]:
    """A Jupyter in the workspace on the block volume, reached as a person does; it runs on when the tunnel ends."""
    token, port = secrets.token_hex(16), free_ports(1)[0]
    on_server(
        lab,
        f"sudo systemd-run --quiet --uid=cc --unit=jupyter-{token[:8]} --setenv=JUPYTER_TOKEN={token} "
        f"jupyter-server --no-browser --ServerApp.root_dir={WORKSPACE}",
    )
    tunnel = lab.start("tunnel", "--local-port", str(port))
    server = Jupyter(f"127.0.0.1:{port}", token)
    try:
        wait_until(server.answers, "Jupyter answers through the tunnel", 3 * BOOT_SECONDS)
        yield server
    finally:
        tunnel.send_signal(signal.SIGINT)
        said = tunnel.communicate(timeout=60)
    assert tunnel.returncode == 0, said


def test_file_outlives_the_server(lab: Site) -> None:
    lab.succeeds("volume", "create", "block")
    lab.succeeds("up")
    (volume,), (first,) = lab.things["volumes"], lab.things["servers"]
    assert on_server(lab, "findmnt -no FSTYPE /mnt/block") == "ext4\n"
    assert "nothing to do" in lab.run("up").err
    with jupyter(lab) as server:
        notebook = server.save_run("lab.ipynb", CELL)

    mounted = lab.run("volume", "detach", "block")
    assert mounted.code == 3 and "mounted at /mnt/block" in mounted.err

    down = lab.run("down", "--yes")
    assert down.code == 0 and "not unmounted before the server is deleted" in down.err  # Jupyter still runs on it
    assert "/mnt/block is in use by process" in down.err
    assert (lab.things["servers"], lab.things["volumes"]) == ([], [volume])

    declared = lab.folder / "provision.toml"
    declared.write_text(declared.read_text().replace("gib = 1", "gib = 2"))
    lab.succeeds("up")
    (second,) = lab.things["servers"]
    assert second != first
    saved = json.loads(on_server(lab, f"cat {WORKSPACE}/lab.ipynb"))
    assert (
        ["".join(cell["source"]) for cell in saved["cells"]] == [cell["source"] for cell in notebook["cells"]] == [CELL]
    )
    assert on_server(lab, f"cat {WORKSPACE}/persisted.txt") == "kept"
    assert int(on_server(lab, "df --output=size -BM /mnt/block | tail -n 1 | tr -d M")) > 1900
    assert lab.run("plan").code == 0

    lab.succeeds("volume", "unmount", "block")
    lab.succeeds("volume", "detach", "block")
    lab.succeeds("volume", "attach", "block")
    lab.succeeds("volume", "mount", "block")
    assert on_server(lab, f"cat {WORKSPACE}/persisted.txt") == "kept"

    lab.succeeds("volume", "unmount", "block")
    lab.succeeds("volume", "detach", "block")
    lab.succeeds("volume", "delete", "block", "--yes")
    assert lab.things["volumes"] == []
    lab.succeeds("down", "--yes")
    wait_until(lambda: not lab.counts, "nothing is left")
