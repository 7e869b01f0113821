"""Reach the server over SSH, and set up and mount its disks."""

from __future__ import annotations

from collections.abc import Sequence

from larder.errors import InputError, LarderError
from provision import addresses, answers, credentials, host_keys, host_scripts, marks, servers, shares, ssh, volumes
from provision.clouds import WaitTimeoutError, poll_until
from provision.declaration import ShareSpec, VolumeSpec
from provision.gpu import set_up_gpu
from provision.host_scripts import Disk, Export, HostSetup
from provision.marks import Resource
from provision.ssh import SshAddress, SshClient
from provision.stack import Stack

CONSOLE_SECONDS = 180
"""Time for cloud-init to print the host keys, once the server's SSH answers."""


def require_server(stack: Stack) -> Resource:
    """Return the server. Raises InputError if there is none, ServiceError if it is in ERROR."""
    server = servers.find(stack)
    if server is None:
        raise InputError(f"the stack {stack.name} has no server", next_step="run `up`")
    if server.status == "ERROR":
        raise servers.server_error(stack, server)
    return server


def address_of(stack: Stack, server: Resource) -> str:
    """Return the server's floating IP, or its first own address if it has none."""
    floating = addresses.find(stack) if stack.clouds.compute.offers("network") else None
    if floating is not None and floating.raw.port_id in addresses.ports_of(stack, server):
        return answers.validate_address(floating.name, "the floating IP")
    own_addresses = [item["addr"] for items in (server.raw.addresses or {}).values() for item in items]
    if not own_addresses:
        raise InputError(f"{server} has no address", next_step="declare a [floating_ip], then run `up`")
    return answers.validate_address(own_addresses[0], f"the address of {server}")


def make_ssh_client(stack: Stack) -> SshClient:
    """Return the SSH client for the server, without connecting yet."""
    if stack.declaration.server is None:
        raise InputError(f"{stack.name} declares no server", next_step="declare it as [server]")
    return _ssh(stack, require_server(stack))


def _ssh(stack: Stack, server: Resource) -> SshClient:
    declared = stack.declaration.server
    assert declared
    address = SshAddress(address_of(stack, server), declared.user, key=declared.private_key)
    repository = stack.declaration.host.repository if stack.declaration.host else None
    ssh.record_checkout(stack.state_folder, host_scripts.checkout_folder(repository) if repository else "")
    return SshClient(address, stack.state_folder, lambda: _host_keys(stack, server))


def _host_keys(stack: Stack, server: Resource) -> frozenset[str]:
    """Return the host keys' fingerprints from the console, waiting for the boot; report if there are none."""

    def check() -> frozenset[str] | None:
        log = servers.console_log(stack, server)
        fingerprints = host_keys.read_console_fingerprints(log)
        return fingerprints if fingerprints or not host_keys.may_still_appear(log) else None

    try:
        what = f"{server} shows its host keys on its console"
        fingerprints = poll_until(
            stack.reporter, what, check, CONSOLE_SECONDS, "look at the console in the site's web interface"
        )
    except WaitTimeoutError:
        fingerprints = frozenset()
    if fingerprints:
        stack.report("ssh", "the host key is checked against the server's console log")
    else:
        stack.report(
            "ssh",
            "the server's console log shows no host keys: the key that it shows at this first contact is "
            "trusted, and checked from now on",
        )
    return fingerprints


def set_up(stack: Stack, is_new: bool = False) -> None:
    """Set up the machine and its disks as [host] declares. Only a new one is rebooted if its GPU driver needs it."""
    declared = stack.declaration.host
    assert declared
    ssh_client = make_ssh_client(stack)
    stack.report("ssh", f"waiting for SSH at {ssh_client}")
    ssh_client.wait_for_login(stack.declaration.limits.ssh)
    mounted = [volume for volume in stack.declaration.volumes if volume.mount]
    disks = [volumes.disk(volumes.require_volume(stack, volume.name), volume) for volume in mounted]
    setup = HostSetup(declared.docker, declared.rclone, declared.tools, declared.repository, declared.revision)
    exports = [mounted_export(stack, share) for share in stack.declaration.shares if share.mount]
    host_scripts.set_up(
        ssh_client, setup, disks, lambda disk: volumes.mark_formatted(stack, disk.serial), stack.reporter, exports
    )
    if declared.nvidia:
        set_up_gpu(ssh_client, stack.reporter, is_new, stack.declaration.limits.ssh)
    for volume in mounted:
        if volumes.is_grown(volumes.require_volume(stack, volume.name)):
            grow(stack, volume)
    if stack.declaration.credentials:
        _write_keys(stack, ssh_client)


def _write_keys(stack: Stack, ssh_client: SshClient) -> None:
    """Write the stack's S3 keys on the server, so that larder and rclone work there. Without keys, do nothing."""
    keys = credentials.find(stack)
    declared, host = stack.declaration.credentials, stack.declaration.host
    if keys is None:
        return
    assert declared and host
    if host.repository is None:
        stack.report("note", "the server gets no .env, since [host] declares no repository that would hold it")
    host_scripts.write_keys(
        ssh_client,
        {"settings": credentials.env_settings(stack, keys), "section": credentials.rclone_section(stack, keys)},
        repository=host.repository,
        remote=declared.rclone_remote,
        stack=stack.name,
        reporter=stack.reporter,
    )


def mounted_disk(stack: Stack, volume: VolumeSpec) -> Disk:
    """Return the disk of a volume. Raises InputError unless it has a mount point and is attached to the server."""
    if not volume.mount:
        raise InputError(f"volume {volume.name} declares no mount point", next_step='add mount = "/mnt/block" to it')
    attached, server = volumes.require_volume(stack, volume.name), require_server(stack)
    if volumes.server_of(attached) != server.id:
        raise InputError(f"{attached} is not attached to the server", next_step=f"`volume attach {volume.name}` first")
    return volumes.disk(attached, volume)


def mount(stack: Stack, volume: VolumeSpec) -> None:
    """Mount a volume on the server; format it first if it is blank."""
    disk = mounted_disk(stack, volume)
    host_scripts.mount(
        make_ssh_client(stack), disk, lambda disk: volumes.mark_formatted(stack, disk.serial), stack.reporter
    )


def unmount(stack: Stack, volume: VolumeSpec) -> None:
    """Unmount a volume on the server."""
    host_scripts.unmount(make_ssh_client(stack), mounted_disk(stack, volume), stack.reporter)


def mounted_export(stack: Stack, share: ShareSpec) -> Export:
    """Return the export of a share. Raises InputError unless it has a mount point."""
    if not share.mount:
        raise InputError(f"share {share.name} declares no mount point", next_step='add mount = "/mnt/share" to it')
    return shares.export(stack, shares.require_share(stack, share.name), share)


def mount_share(stack: Stack, share: ShareSpec) -> None:
    """Give the server access to a share, and mount it there."""
    export, server = mounted_export(stack, share), require_server(stack)
    shares.update_access(stack, shares.require_share(stack, share.name), server)
    host_scripts.mount_export(make_ssh_client(stack), export, stack.reporter)


def unmount_share(stack: Stack, share: ShareSpec) -> None:
    """Unmount a share on the server, and take the access from it."""
    existing, server = shares.require_share(stack, share.name), servers.find(stack)
    if share.mount and server is not None and server.status == "ACTIVE":
        host_scripts.unmount_export(make_ssh_client(stack), existing.id, share.mount, stack.reporter)
    shares.revoke_all(stack, [rule for rule in shares.access_rules(stack, existing) if rule.ours])


def require_unused(stack: Stack, volume: VolumeSpec) -> None:
    """Raise InputError if the machine uses the volume or can't tell, since unwritten data might be lost."""
    existing, server = volumes.require_volume(stack, volume.name), servers.find(stack)
    holder = volumes.server_of(existing)
    if (
        existing.status == "detaching"
        or holder is None
        or (server is not None and server.id == holder and server.status == "SHUTOFF")
    ):
        return
    try:
        uses = (
            host_scripts.find_disk_users(make_ssh_client(stack), existing.id)
            if server and server.id == holder
            else ["at another server"]
        )
    except LarderError as error:
        raise InputError(
            f"it is unknown whether volume {volume.name} is mounted: {error.what}",
            next_step="fix that; or --force, which loses what the machine hasn't written to it yet",
        ) from error
    if uses:
        raise InputError(
            f"volume {volume.name} is {', '.join(uses)}",
            next_step=f"`volume unmount {volume.name}` first" if volume.mount else "free it on the server first",
        )


def unmount_all(
    stack: Stack, server: Resource, attached: Sequence[Resource], ours: Sequence[Resource] = ()
) -> list[str]:
    """Unmount our volumes and shares before the server is deleted, as far as possible. Return the failures.

    Args:
        stack: The stack.
        server: Its server.
        attached: Our volumes.
        ours: Our shares.
    """
    if stack.declaration.host is None or server.status != "ACTIVE":
        return []
    mounted = {volume.name: volume for volume in stack.declaration.volumes if volume.mount}
    failures = []
    for existing in attached:
        declared = mounted.get(marks.declared_name(existing))
        if declared is None or volumes.server_of(existing) != server.id:
            continue
        try:
            host_scripts.unmount(_ssh(stack, server), volumes.disk(existing, declared), stack.reporter)
        except LarderError as error:
            failures.append(f"volume {declared.name}: {error.what}")
    mounts = {share.name: share.mount for share in stack.declaration.shares if share.mount}
    for existing in ours:
        if mount := mounts.get(marks.declared_name(existing)):
            try:
                host_scripts.unmount_export(_ssh(stack, server), existing.id, mount, stack.reporter)
            except LarderError as error:
                failures.append(f"share {marks.declared_name(existing)}: {error.what}")
    return failures


def grow(stack: Stack, volume: VolumeSpec) -> None:
    """Extend partition and file system after the volume has grown."""
    disk = mounted_disk(stack, volume)
    host_scripts.grow(make_ssh_client(stack), disk, stack.reporter)
    volumes.mark_grown(stack, disk.serial, False)


def forget_host_key(stack: Stack) -> None:
    """Forget the previous server's host key, since the new one may get its address."""
    ssh.forget_host_key(stack.state_folder)
