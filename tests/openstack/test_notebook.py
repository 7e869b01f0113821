"""The notebook for Chameleon's Jupyter, run from its first to its last cell, with the login that the hub leaves.

The sites, Keystone's federation, the servers and their disk are real (hypervisor.py, federation.py). Two things differ
from Chameleon: nothing is installed on the servers, and cells that need larder's images there are left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.openstack.conftest import ROOT, Site
from tests.openstack.container import ServerContainer
from tests.openstack.federation import Front
from tests.openstack.guest import make_key
from tests.openstack.hypervisor import Hypervisor

NOTEBOOK = "provision/chameleon.ipynb"
NETID = "ab1234"
CELL_SECONDS = 1200


@pytest.fixture
def checkout(site: Site, fronts: list[Front], repository: str) -> Path:
    """A clone of larder in the hub, whose examples name the box's sites."""
    folder = site.folder / "larder"
    for name in ("larder", "provision", "compose", "services"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    subprocess.run(["git", "init", "-q", folder], check=True)
    subprocess.run(["git", "-C", folder, "remote", "add", "origin", repository], check=True)
    for path in (folder / "provision" / "examples").glob("jupyter-*.toml"):
        text = path.read_text() + "docker = false\nrclone = false\ntools = []\n"
        for front, place in zip(fronts, ("kvm", "chi"), strict=True):
            address = rf'auth_url = "https://{place}[^"]*", region = "[^"]*"'
            text = re.sub(address, f'auth_url = "{front.address}/v3", region = "RegionOne"', text)
        path.write_text(text.replace("gib = 20", "gib = 1"))
    return folder


@pytest.fixture
def machines(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hypervisor]:
    """Machines for the servers: one with a disk where a volume is, else a container. Both admit the user's key."""
    ssh = site.folder / ".ssh"
    ssh.mkdir(mode=0o700)
    os.rename(make_key(site.folder), ssh / "id_ed25519")
    public = (site.folder / "key.pub").read_text().strip()
    site.cloud.compute.create_keypair(name=f"{NETID}-jupyter", public_key=public)
    os.rename(site.folder / "key.pub", ssh / "id_ed25519.pub")

    def start(server: Any, key: str) -> Any:
        return made.start_guest(server, key) if server.name.startswith("block") else ServerContainer(key)

    made = Hypervisor(site.cloud, site.operator, tmp_path_factory.mktemp("machines"), start)
    yield made
    made.close()


def test_the_notebook_walks_through_both_parts_of_the_lab(
    site: Site, hub: Front, checkout: Path, machines: Hypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LARDER_TEST_OPENSTACK", raising=False)  # no setting of the command's
    monkeypatch.delenv("LARDER_CALLER")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(checkout / NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("%env NETID=netID", f"%env NETID={NETID}")
    notebook.cells = [cell for cell in notebook.cells if "on-server" not in cell.metadata.get("tags", [])]
    folder = str(checkout / "provision")
    NotebookClient(notebook, timeout=CELL_SECONDS, resources={"metadata": {"path": folder}}).execute()
    said = ["".join(output.get("text", "") for output in cell.get("outputs", ())) for cell in notebook.cells]
    whole = "\n".join(said)
    assert whole.count("fault ") == 0
    assert whole.count(" is as declared: ") == 2
    (story,) = [text for text, cell in zip(said, notebook.cells, strict=True) if "server delete" in cell.source]
    assert "lease, address and volumes stay" in story, story
    assert re.search(r"^\w.* 20\d\d\r?$", story, re.MULTILINE), story  # written before the server was replaced
    assert "wrote the S3 keys: food/.env" in whole and "AWS_SECRET" not in whole
    assert site.counts == {}
