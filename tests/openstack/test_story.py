"""The story of a lab: a volume, or a share, outlives its server. Every command is the one that a person types.

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
from tests.openstack.services import container_at

WORKSPACE = "/mnt/block/workspace"
NFS_SERVER = "203.0.113.253"
"""That of box/manila_fake.py."""
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

{storage}

[host]
docker = false
rclone = false
tools = []

[limits]
ssh = {seconds}
"""


VOLUME = '[[volume]]\nname = "block"\ngib = 1\nmount = "/mnt/block"'
SHARE = '[[share]]\nname = "photos"\ngib = 1\nmount = "/mnt/share"'


@pytest.fixture
def machines(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hypervisor]:
    """The machines of the site's servers."""
    made = Hypervisor(site.cloud, site.operator, tmp_path_factory.mktemp("machines"))
    yield made
    made.close()


@pytest.fixture
def lab(site: Site, machines: Hypervisor, tmp_path: Path) -> Site:
    """A site whose servers are machines."""
    key = make_key(tmp_path)
    site.cloud.compute.create_keypair(name="lab", public_key=key.with_suffix(".pub").read_text().strip())
    site.declare(LAB.format(key=key, seconds=2 * BOOT_SECONDS, storage=VOLUME))
    return site


@pytest.fixture
def nfs(site: Site, machines: Hypervisor) -> Iterator[None]:
    """The box's NFS server, at the address that the exports of its shares have."""
    name = container_at(site.box)
    machines.connect(NFS_SERVER, name)
    yield
    machines.disconnect(name)


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


def test_files_on_a_share_outlive_the_server(lab: Site, nfs: None) -> None:
    """The NFS server lets in only those whom Manila's access rules name: here by the floating IP."""
    declared = lab.folder / "provision.toml"
    declared.write_text(declared.read_text().replace(VOLUME, SHARE))
    lab.succeeds("up")
    (share,), (first,) = lab.things["shares"], lab.things["servers"]
    assert on_server(lab, "findmnt -no SOURCE,FSTYPE /mnt/share").split()[1] == "nfs4"
    assert "nothing to do" in lab.run("up").err
    on_server(lab, "echo kept >/mnt/share/note")

    lab.succeeds("share", "unmount", "photos")
    assert on_server(lab, "findmnt /mnt/share || echo no").strip() == "no" and lab.things["access"] == []
    (export,) = lab.cloud.shared_file_system.export_locations(share)
    tried = on_server(lab, f"sudo mount -t nfs -o nfsvers=4.1,retry=0 {export.path} /mnt/share 2>&1; echo ended $?")
    assert "ended 32" in tried, tried
    lab.succeeds("share", "mount", "photos")
    assert on_server(lab, "cat /mnt/share/note") == "kept\n"

    lab.succeeds("server", "delete", "--yes")
    assert lab.things["access"] == [] and lab.things["shares"] == [share]
    lab.succeeds("server", "create")
    assert lab.things["servers"] != [first] and on_server(lab, "cat /mnt/share/note") == "kept\n"
    down = lab.run("down", "--yes", "--delete-data", "photos")
    assert down.code == 0 and "not unmounted" not in down.err, down
    wait_until(lambda: not lab.counts, "nothing is left")
