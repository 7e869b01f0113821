"""A real server to set up, where no disk is needed: the guest's Debian in a container, with systemd and SSH.

Nothing of it is emulated, so Docker is installed in seconds. It needs Docker Engine, and capabilities to mount.
"""

from __future__ import annotations

import subprocess
import uuid

from tests.openstack.disks import build_image

CAPABILITIES = ("SYS_ADMIN", "NET_ADMIN")
"""systemd mounts, and Docker sets up its network. No more than these: then systemd leaves this machine's devices and
kernel settings alone."""


class ServerContainer:
    """One server, with user `cc` and a key."""

    def __init__(self, public_key: str) -> None:
        """Start it."""
        self.name = f"larder-server-{uuid.uuid4().hex[:12]}"
        image = build_image("larder-test-server", "container")
        subprocess.run(
            ["docker", "run", "--detach", "--rm", "--name", self.name, "--env", "container=docker",
             "--cgroupns=private", *(f"--cap-add={name}" for name in CAPABILITIES),
             "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
             "--tmpfs", "/run", "--tmpfs", "/tmp", "--volume", "/var/lib/docker", image, public_key],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.address, self.gateway = self._look("IPAddress"), self._look("Gateway")

    def _look(self, field: str) -> str:
        """Return a field of its network: this machine is the gateway."""
        form = f"{{{{range .NetworkSettings.Networks}}}}{{{{.{field}}}}}{{{{end}}}}"
        return subprocess.check_output(["docker", "inspect", "--format", form, self.name], text=True).strip()

    def close(self) -> None:
        """End it at once."""
        subprocess.run(["docker", "rm", "--force", "--volumes", self.name], check=False, stdout=subprocess.DEVNULL)

    def shut_down(self) -> None:
        """End it as a cloud ends a server."""
        self.close()
