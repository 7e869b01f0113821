"""What the tests do on a server over SSH."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from provision.host_scripts import Disk, HostSetup
from provision.ssh import SshClient
from tests.openstack.disks import ROOT

NOTHING = HostSetup(docker=False, rclone=False, tools=(), repository=None, revision=None)


def on_server(ssh: SshClient, command: str) -> str:
    ended = ssh.run(["sh", "-c", command], root=True)
    assert ended.code == 0, ended.stderr
    return ended.stdout


def in_a_process(ssh: SshClient, code: str) -> subprocess.Popen[str]:
    """Code in a process of its own, which a signal may end; the same server is its `server`."""
    head = (
        "import sys; from pathlib import Path; from provision import host_scripts; from provision.ssh import "
        "SshAddress, SshClient\n"
        "host, user, port, key, folder = sys.argv[1:]\n"
        "server = SshClient(SshAddress(host, user, int(port), Path(key)), Path(folder))\n"
    )
    address = ssh.address
    argv = [address.host, address.user, str(address.port), str(address.key), str(ssh.state_folder)]
    return subprocess.Popen([sys.executable, "-c", head + code, *argv], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def marks() -> tuple[list[Disk], Callable[[Disk], None]]:
    marked: list[Disk] = []
    return marked, marked.append
