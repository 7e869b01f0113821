"""What the OpenStack in a container lacks: machines. Each ACTIVE server gets a real guest, and what is attached to it.

Nova, Cinder and Neutron are only read. A volume is a file, kept by its id as long as the volume is there, so it
outlives servers. A floating IP is an address of the guest's container, in a Docker network with the subnet of the
external network: so this machine reaches it, as it would in a cloud.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.openstack.guest import Guest

POLL_SECONDS = 1.0
GIB = 1 << 30


class Hypervisor:
    """Follows the cloud that `connection` sees (openstacksdk's) until it is closed.

    `admin` sees the external network's subnet, which no project does. `start` starts the machine of a server, given the
    server and its public key; by default, a guest. Without volumes, a ServerContainer does, too.
    """

    def __init__(
        self, connection: Any, admin: Any, folder: Path, start: Callable[[Any, str], Any] | None = None
    ) -> None:
        self.guests: dict[str, Any] = {}
        """By the servers' ids."""
        self.volumes = folder / "volumes"
        self.failed: Exception | None = None
        """What ended it before its time."""
        self._cloud = connection
        self._folder = folder
        self._addresses: dict[str, str] = {}  # floating IP -> container
        self._sizes: dict[str, int] = {}
        self._plugged: dict[str, str] = {}  # volume -> server
        self._ports: dict[str, str] = {}  # port -> server
        self._start = start or self.start_guest
        external = next(admin.network.networks(is_router_external=True))
        self._subnet = admin.network.get_subnet(external.subnet_ids[0])
        self._network = f"larder-floating-{external.id[:8]}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all guests; raises what has gone wrong."""
        self._stop.set()
        self._thread.join()
        for guest in self.guests.values():
            guest.close()
        with suppress(RuntimeError):  # another test's machines are in it
            docker("network", "rm", self._network)
        if self.failed:
            raise self.failed

    def start_guest(self, server: Any, key: str) -> Guest:
        """Start the guest of a server."""
        return Guest(self._folder / server.id, self.volumes, key, "0.0.0.0:22", "bridge")

    def connect(self, ip: str, name: str) -> None:
        """Give a container an address in the external network, which tests share; create that if it isn't there."""
        words = ("--subnet", self._subnet.cidr, "--gateway", self._subnet.gateway_ip, self._network)
        for _ in range(3):
            with suppress(RuntimeError):
                docker("network", "create", *words)
            try:
                docker("network", "connect", "--ip", ip, self._network, name)
                return
            except RuntimeError as error:
                if "not found" not in str(error):  # another test has just removed it
                    raise

    def disconnect(self, name: str) -> None:
        """Take a container out of the external network."""
        docker("network", "disconnect", "--force", self._network, name)

    def _run(self) -> None:
        try:
            while not self._stop.wait(POLL_SECONDS):
                self._follow()
        except Exception as error:  # told by close, in the test's own thread
            self.failed = error

    def _follow(self) -> None:
        servers = [server.id for server in self._cloud.compute.servers(details=False, status="ACTIVE")]
        volumes = {volume.id: volume for volume in self._cloud.block_storage.volumes()}
        self._follow_servers(servers)
        self._follow_volumes(volumes)
        self._follow_addresses()
        for gone in {file.name for file in self.volumes.glob("*")} - set(volumes):
            (self.volumes / gone).unlink()

    def _follow_servers(self, servers: list[str]) -> None:
        for gone in set(self.guests) - set(servers):
            self._plugged = {volume: server for volume, server in self._plugged.items() if server != gone}
            self._addresses = {ip: name for ip, name in self._addresses.items() if name != self.guests[gone].name}
            self.guests.pop(gone).shut_down()
        for id in servers:
            if id not in self.guests:
                server = self._cloud.compute.get_server(id)
                key = self._cloud.compute.get_keypair(server.key_name).public_key.strip()
                self.guests[id] = self._start(server, key)

    def _follow_volumes(self, volumes: dict[str, Any]) -> None:
        attached = dict(attachments(volumes.values()))
        for volume, server in list(self._plugged.items()):
            if attached.get(volume) != server:
                self.guests[server].unplug(volume)
                del self._plugged[volume]
        for volume, server in attached.items():
            size_bytes = volumes[volume].size * GIB
            if volume not in self._plugged and server in self.guests:
                self.guests[server].plug(volume, size_bytes)
                self._plugged[volume], self._sizes[volume] = server, size_bytes
            elif volume in self._plugged and self._sizes[volume] != size_bytes:
                self.guests[server].grow(volume, size_bytes)
                self._sizes[volume] = size_bytes

    def _follow_addresses(self) -> None:
        # Neutron takes long to answer, and longer for each field.
        listed = self._cloud.network.get("/floatingips?fields=port_id&fields=floating_ip_address").json()
        wanted = {}
        for ip in listed["floatingips"]:
            guest = self.guests.get(self._server_of(ip["port_id"]))
            if guest:
                wanted[ip["floating_ip_address"]] = guest.name
        for ip, name in list(self._addresses.items()):
            if wanted.get(ip) != name:
                self.disconnect(name)
                del self._addresses[ip]
        for ip, name in wanted.items():
            if ip not in self._addresses:
                self.connect(ip, name)
                self._addresses[ip] = name

    def _server_of(self, port: str | None) -> str:
        """Return the id of the server that a port belongs to, if it does."""
        if port and port not in self._ports:
            found = self._cloud.network.find_port(port)  # it may be gone with its server
            self._ports[port] = found.device_id if found else ""
        return self._ports.get(port or "", "")


def attachments(volumes: Iterable[Any]) -> Iterable[tuple[str, str]]:
    """Volume and server of each attached volume; a volume that a server boots from is the guest's own image."""
    for volume in volumes:
        if volume.status == "in-use" and not volume.is_bootable:
            for attachment in volume.attachments:
                yield volume.id, attachment["server_id"]


def docker(*words: str) -> str:
    """Run a docker command, which must succeed; returns what it prints."""
    ended = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"docker {' '.join(words)}: {ended.stderr.strip()}")
    return ended.stdout.strip()
