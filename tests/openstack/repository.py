"""larder's repository for servers, over HTTP."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.openstack.disks import ROOT


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of larder's repository for servers; it has the files as they are here, in one commit."""
    folder = tmp_path_factory.mktemp("repository")
    bare, index = folder / "food.git", folder / "index"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    environ = {**os.environ, "GIT_DIR": str(bare), "GIT_WORK_TREE": str(ROOT), "GIT_INDEX_FILE": str(index)}
    subprocess.run(["git", "init", "-q", "--bare", bare], check=True)
    names = ["larder", "services", "compose", "pyproject.toml", "uv.lock"]
    subprocess.run([*git, "add", "--", *names], env=environ, check=True)
    tree = subprocess.check_output([*git, "write-tree"], env=environ, text=True).strip()
    commit = subprocess.check_output([*git, "commit-tree", "-m", "one", tree], env=environ, text=True).strip()
    head = subprocess.check_output(["git", "-C", bare, "symbolic-ref", "HEAD"], text=True).strip()
    subprocess.run(["git", "-C", bare, "update-ref", head, commit], check=True)
    subprocess.run(["git", "-C", bare, "update-server-info"], check=True)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            pass

    form = "{{(index .IPAM.Config 0).Gateway}}"
    gateway = subprocess.check_output(["docker", "network", "inspect", "bridge", "--format", form], text=True).strip()
    with ThreadingHTTPServer((gateway, 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{gateway}:{server.server_port}/food.git"
        server.shutdown()
