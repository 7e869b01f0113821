"""The server as a machine: how to reach it, and what is done on it over SSH."""

from __future__ import annotations

from larder.errors import InputError, LarderError
from provision import hosts, networks, servers, volumes
from provision.declaration import Volume
from provision.hosts import Disk, HostSetup
from provision.marks import Thing
from provision.ssh import Address, Ssh
from provision.stack import Stack


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
    own = [item["addr"] for items in (server.raw.addresses or {}).values() for item in items]
    if floating is not None and floating.raw.port_id:
        return floating.name
    if not own:
        raise InputError(f"{server} has no address", next_step="declare a [floating_ip], then run `up`")
    return str(own[0])


def reach(stack: Stack) -> Ssh:
    """SSH to the server. Nothing is connected yet."""
    wanted = stack.declaration.server
    if wanted is None:
        raise InputError(f"{stack.name} declares no server", next_step="declare it as [server]")
    address = Address(address_of(stack, need_server(stack)), wanted.user, key=wanted.private_key)
    return Ssh(address, stack.state_folder)


def set_up(stack: Stack) -> None:
    """Bring the machine to what [host] says, with its disks."""
    wanted = stack.declaration.host
    assert wanted
    ssh = reach(stack)
    stack.say("ssh", f"waiting for SSH at {ssh}")
    ssh.wait(stack.declaration.limits.ssh)
    disks = [_disk(stack, volume) for volume in stack.declaration.volumes if volume.mount]
    setup = HostSetup(wanted.docker, wanted.rclone, wanted.tools, wanted.repository, wanted.revision)
    hosts.set_up(ssh, setup, disks, lambda disk: volumes.mark_formatted(stack, disk.serial))


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
    hosts.mount(reach(stack), mounted_disk(stack, volume), lambda disk: volumes.mark_formatted(stack, disk.serial))


def unmount(stack: Stack, volume: Volume) -> None:
    hosts.unmount(reach(stack), mounted_disk(stack, volume))


def refuse_if_mounted(stack: Stack, volume: Volume) -> None:
    """InputError when the machine has the volume mounted, or can't be asked: what is written there might get lost."""
    if not volume.mount or volumes.server_of(volumes.need(stack, volume.name)) is None:
        return
    try:
        look = hosts.looks(reach(stack), mounted_disk(stack, volume))
    except LarderError as error:
        raise InputError(
            f"whether volume {volume.name} is mounted can't be seen: {error.what}",
            next_step="mend that; or --force, which loses what the machine hasn't written to it yet",
        ) from error
    if look.state == "mounted":
        users = f", used by {', '.join(look.users)}" if look.users else ""
        raise InputError(f"volume {volume.name} is mounted at {look.mounted_at}{users}",
                         next_step=f"`volume unmount {volume.name}` first")  # fmt: skip


def unmount_all(stack: Stack, server: Thing) -> list[str]:
    """Unmount what can be, before the server is deleted; returns why a disk could not be."""
    failed = []
    for volume in stack.declaration.volumes:
        found = volumes.find(stack, volume.name) if volume.mount and stack.declaration.host else None
        if found is None or volumes.server_of(found) != server.id or server.status != "ACTIVE":
            continue
        try:
            hosts.unmount(reach(stack), volumes.disk(found, volume))
        except LarderError as error:
            failed.append(f"volume {volume.name}: {error.what}")
    return failed


def grow(stack: Stack, volume: Volume) -> None:
    """Extend partition and file system after the volume was grown."""
    hosts.grow(reach(stack), mounted_disk(stack, volume))


def forget_host_key(stack: Stack) -> None:
    """Forget the host key of the server before, whose address the new one may have."""
    (stack.state_folder / "known_hosts").unlink(missing_ok=True)
