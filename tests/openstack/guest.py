"""A real server to set up: a Debian guest under QEMU in a container, with SSH and disks that are plugged in and out.

It needs Docker Engine and nothing else: QEMU lies in the image, emulates (no KVM), and runs as an ordinary user. The
guest was booted when the image was built, and goes on from there; only a reset boots it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.openstack.disks import build_image

BOOT_SECONDS = 600
SHUT_DOWN_SECONDS = 120


def make_key(folder: Path) -> Path:
    """A new key pair; returns the private key's path."""
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
    return key


class Guest:
    """One guest. Its console and QEMU's socket lie in `folder`, its disks in `disks`, which may outlive it."""

    def __init__(self, folder: Path, disks: Path, public_key: str, listen: str, network: str = "host") -> None:
        """Start it: its SSH answers at `listen` ("127.0.0.1:2222") in a Docker network, or in this machine's own."""
        self.folder = folder
        self.disks = disks
        for place in (folder, disks):
            place.mkdir(parents=True, exist_ok=True)
        self.name = f"larder-guest-{uuid.uuid4().hex[:12]}"
        image = build_image("larder-test-guest")
        subprocess.run(
            ["docker", "run", "--detach", "--rm", "--name", self.name, "--network", network,
             "--user", f"{os.getuid()}:{os.getgid()}", "--cap-drop=ALL", "--cap-add=NET_BIND_SERVICE",
             "--volume", f"{folder}:/run/guest", "--volume", f"{disks}:/run/disks", "--tmpfs", "/var/tmp:mode=1777",
             image, listen, public_key],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self._deleted: list[dict[str, Any]] = []
        self._qmp = connect(folder / "qmp")
        self._qmp.settimeout(SHUT_DOWN_SECONDS)
        self._lines = self._qmp.makefile("r")
        self._lines.readline()  # the greeting
        self.qmp("qmp_capabilities")
        while self.qmp("query-status")["status"] == "inmigrate":  # its memory is being read
            time.sleep(0.1)
        self.qmp("cont")

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Give QEMU a command; returns its answer."""
        self._qmp.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self._lines.readline())
            self._note(answer)
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def plug(self, serial: str, size_bytes: int = 0) -> Path:
        """Attach a disk, as a cloud attaches a volume: a file named by its serial, of at least this size."""
        file = self.disks / serial
        file.touch()
        if file.stat().st_size < size_bytes:
            os.truncate(file, size_bytes)
        node = {"driver": "file", "filename": f"/run/disks/{serial}"}
        self.qmp("blockdev-add", **{"driver": "raw", "node-name": node_of(serial), "file": node})
        self.qmp("device_add", driver="virtio-blk-pci", drive=node_of(serial), id=device_of(serial), serial=serial)
        return file

    def unplug(self, serial: str) -> None:
        """Detach a disk, and wait until the guest has let go of it."""
        self.qmp("device_del", id=device_of(serial))
        while not any(event.get("device") == device_of(serial) for event in self._deleted):
            self._note(json.loads(self._lines.readline()))
        self._deleted.clear()
        self.qmp("blockdev-del", **{"node-name": node_of(serial)})

    def _note(self, message: dict[str, Any]) -> None:
        """Keep a message that a device is gone: only then does QEMU release its disk."""
        if message.get("event") == "DEVICE_DELETED":
            self._deleted.append(message["data"])

    def grow(self, serial: str, size_bytes: int) -> None:
        """Extend a disk that is attached."""
        self.qmp("block_resize", **{"node-name": node_of(serial), "size": size_bytes})

    def shut_down(self) -> None:
        """Press its power button, as a cloud does that stops a server, and end it when it is off."""
        self.qmp("system_powerdown")
        end = time.monotonic() + SHUT_DOWN_SECONDS
        with suppress(TimeoutError):
            while time.monotonic() < end and self._lines.readline():  # events, until QEMU ends
                pass
        self.close()

    def reset(self) -> None:
        """What a power cut does."""
        self.qmp("system_reset")

    @property
    def console(self) -> str:
        """What the guest wrote on its console."""
        return (self.folder / "console").read_text(errors="replace")

    def close(self) -> None:
        """End it at once."""
        self._lines.close()
        self._qmp.close()
        subprocess.run(["docker", "rm", "--force", self.name], check=False, stdout=subprocess.DEVNULL)


def node_of(serial: str) -> str:
    """QEMU's name of a disk's file; such names are short."""
    return f"n{serial[:20]}"


def device_of(serial: str) -> str:
    """QEMU's name of a disk."""
    return f"d{serial[:20]}"


def connect(path: Path) -> socket.socket:
    """Connect to QMP as soon as QEMU listens; its path may be longer than a socket's address allows."""
    end = time.monotonic() + BOOT_SECONDS
    folder = os.open(path.parent, os.O_PATH)
    try:
        while True:
            client = socket.socket(socket.AF_UNIX)
            try:
                client.connect(f"/proc/self/fd/{folder}/{path.name}")
                return client
            except OSError:
                client.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
    finally:
        os.close(folder)
