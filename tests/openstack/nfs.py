"""A real NFS server, NFS-Ganesha in a container, which tests may stop, and from which they may take a share away."""

from __future__ import annotations

import subprocess
import uuid

from tests.openstack.disks import build_image


class NfsServer:
    """It serves /shares/open to one client, and /shares/closed to nobody."""

    def __init__(self, client: str) -> None:
        """Start it."""
        self.name = f"larder-nfs-{uuid.uuid4().hex[:12]}"
        image = build_image("larder-test-nfs", "nfs")
        # It opens files by their handles, as NFS's clients name them; a volume's file system has such handles.
        capabilities = ("--cap-add=DAC_READ_SEARCH",)
        self._docker("run", "--detach", "--rm", "--name", self.name, *capabilities, "--volume", "/srv", image, client)
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        self.address = self._docker("inspect", "--format", form, self.name)

    def run(self, command: str) -> str:
        """Run a command where its files are."""
        return self._docker("exec", self.name, "sh", "-c", command)

    def pause(self) -> None:
        """Stop it in the middle: its kernel accepts connections, and nothing answers."""
        self._docker("pause", self.name)

    def go_on(self) -> None:
        """Undo `pause`."""
        self._docker("unpause", self.name)

    def close(self) -> None:
        """End it at once."""
        subprocess.run(["docker", "rm", "--force", "--volumes", self.name], check=False, stdout=subprocess.DEVNULL)

    def _docker(self, *words: str) -> str:
        return subprocess.run(["docker", *words], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
