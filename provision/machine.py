"""The server as a machine: how to reach it, and what is done on it over SSH."""

from __future__ import annotations

from collections.abc import Sequence

from larder.errors import InputError, LarderError
from provision import answers, host_keys, hosts, networks, servers, ssh, volumes
from provision.clouds import TooLate, wait
from provision.declaration import Volume
from provision.hosts import Disk, HostSetup
from provision.marks import Thing
from provision.ssh import Address, Ssh
from provision.stack import Stack

CONSOLE_SECONDS = 180
"""How long cloud-init may take to show the host keys, once the server's SSH answers."""


def need_server(stack: Stack) -> Thing:
    """The server, running."""
    found = servers.find(stack)
    if found is None:
        raise InputError(f"the stack {stack.name} has no server", next_step="`up` makes it")
    if found.status == "ERROR":
        raise servers.failed(stack, found)
    return found


def address_of(stack: Stack, server: Thing) -> str:
    """The server's floating IP, or its first own address where none is declared."""
    floating = networks.find_address(stack)
    if floating is not None and floating.raw.port_id:
        return answers.address(floating.name, "the floating IP")
    own = [item["addr"] for items in (server.raw.addresses or {}).values() for item in items]
    if not own:
        raise InputError(f"{server} has no address", next_step="declare a [floating_ip], then run `up`")
    return answers.address(own[0], f"the address of {server}")


def reach(stack: Stack) -> Ssh:
    """SSH to the server. Nothing is connected yet."""
    if stack.declaration.server is None:
        raise InputError(f"{stack.name} declares no server", next_step="declare it as [server]")
    return _ssh(stack, need_server(stack))


def _ssh(stack: Stack, server: Thing) -> Ssh:
    wanted = stack.declaration.server
    assert wanted
    address = Address(address_of(stack, server), wanted.user, key=wanted.private_key)
    return Ssh(address, stack.state_folder, lambda: _host_keys(stack, server))


def _host_keys(stack: Stack, server: Thing) -> frozenset[str]:
    """The fingerprints that the server's console shows, which may take until it has booted; says when it shows none."""

    def look() -> frozenset[str] | None:
        log = servers.console_log(stack, server)
        found = host_keys.in_console(log)
        return found if found or not host_keys.will_come(log) else None

    try:
        what = f"{server} shows its host keys on its console"
        found = wait(stack.reporter, what, look, CONSOLE_SECONDS, "look at the console in the site's web interface")
    except TooLate:
        found = frozenset()
    if found:
        stack.say("ssh", "the host key is checked against the server's console log")
    else:
        stack.say("ssh", "the server's console log shows no host keys: the key that it shows at this first contact is "
                  "trusted, and checked from now on")  # fmt: skip
    return found


def set_up(stack: Stack) -> None:
    """Bring the machine to what [host] says, with its disks."""
    wanted = stack.declaration.host
    assert wanted
    there = reach(stack)
    stack.say("ssh", f"waiting for SSH at {there}")
    there.wait(stack.declaration.limits.ssh)
    disks = [_disk(stack, volume) for volume in stack.declaration.volumes if volume.mount]
    setup = HostSetup(wanted.docker, wanted.rclone, wanted.tools, wanted.repository, wanted.revision)
    hosts.set_up(there, setup, disks, lambda disk: volumes.mark_formatted(stack, disk.serial), stack.reporter)
    for volume in stack.declaration.volumes:
        if volume.mount and volumes.is_grown(volumes.need(stack, volume.name)):
            grow(stack, volume)


def _disk(stack: Stack, volume: Volume) -> Disk:
    return volumes.disk(volumes.need(stack, volume.name), volume)


def mounted_disk(stack: Stack, volume: Volume) -> Disk:
    """The disk of a volume that has a mount point, and is at the server."""
    if not volume.mount:
        raise InputError(f"volume {volume.name} declares no mount point", next_step='add mount = "/mnt/block" to it')
    found, server = volumes.need(stack, volume.name), need_server(stack)
    if volumes.server_of(found) != server.id:
        raise InputError(f"{found} is not attached to the server", next_step=f"`volume attach {volume.name}` first")
    return volumes.disk(found, volume)


def mount(stack: Stack, volume: Volume) -> None:
    disk = mounted_disk(stack, volume)
    hosts.mount(reach(stack), disk, lambda disk: volumes.mark_formatted(stack, disk.serial), stack.reporter)


def unmount(stack: Stack, volume: Volume) -> None:
    hosts.unmount(reach(stack), mounted_disk(stack, volume), stack.reporter)


def refuse_if_used(stack: Stack, volume: Volume) -> None:
    """InputError when the machine uses the volume, or can't be asked: what is written there might get lost."""
    found, server = volumes.need(stack, volume.name), servers.find(stack)
    holder = volumes.server_of(found)
    if (
        found.status == "detaching"
        or holder is None
        or (server is not None and server.id == holder and server.status == "SHUTOFF")
    ):
        return
    try:
        uses = hosts.users(reach(stack), found.id) if server and server.id == holder else ["at another server"]
    except LarderError as error:
        raise InputError(
            f"whether volume {volume.name} is mounted can't be seen: {error.what}",
            next_step="fix that; or --force, which loses what the machine hasn't written to it yet",
        ) from error
    if uses:
        raise InputError(
            f"volume {volume.name} is {', '.join(uses)}",
            next_step=f"`volume unmount {volume.name}` first" if volume.mount else "free it on the server first",
        )


def unmount_all(stack: Stack, server: Thing, attached: Sequence[Thing]) -> list[str]:
    """Unmount what can be of our volumes, before the server is deleted; returns why a disk could not be."""
    if stack.declaration.host is None or server.status != "ACTIVE":
        return []
    mounted = {volume.name: volume for volume in stack.declaration.volumes if volume.mount}
    failed = []
    for found in attached:
        wanted = mounted.get(volumes.part(found))
        if wanted is None or volumes.server_of(found) != server.id:
            continue
        try:
            hosts.unmount(_ssh(stack, server), volumes.disk(found, wanted), stack.reporter)
        except LarderError as error:
            failed.append(f"volume {wanted.name}: {error.what}")
    return failed


def grow(stack: Stack, volume: Volume) -> None:
    """Extend partition and file system after the volume was grown."""
    disk = mounted_disk(stack, volume)
    hosts.grow(reach(stack), disk, stack.reporter)
    volumes.mark_grown(stack, disk.serial, False)


def forget_host_key(stack: Stack) -> None:
    """Forget the host key of the server before, whose address the new one may have."""
    ssh.forget_host_key(stack.state_folder)
