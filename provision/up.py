"""`up`: find, create and wait. A second run changes nothing, or resumes an interrupted one.

Volumes come before the lease, so that they don't use up its time. The bucket, which takes only a moment, comes last.
"""

from __future__ import annotations

from larder.errors import InputError, LarderError
from provision import credentials, leases, networks, objects, server_setup, servers, volumes
from provision.leases import Lease
from provision.marks import Resource
from provision.plan import PlanStep, plan
from provision.stack import Stack


def up(stack: Stack, replace: bool = False) -> list[PlanStep]:
    """Bring the stack to its declared state, and return the plan's steps."""
    steps = plan(stack)
    if not replace:
        _refuse_to_replace(stack, steps)
    wanted = stack.declaration
    for group in wanted.security_groups:
        if networks.find_group(stack, group) is None:
            stack.report("create", f"security group {group.name}")
            networks.create_group(stack, group)
        found = networks.find_group(stack, group)
        assert found
        if not _is_used_unchanged(stack, found):
            networks.update_group(stack, group, found)
    for volume in wanted.volumes:
        ensure_volume(stack, volume.name)
    if wanted.server:
        _connect(stack, _server(stack, replace))
    if wanted.bucket and _missing_mark(objects.find(stack)):
        stack.report("create", f"bucket {wanted.bucket.name}")
        objects.create(stack)
    if wanted.credentials:
        ensure_credentials(stack)
    if wanted.host:
        server_setup.set_up(stack)
    return steps


def _is_used_unchanged(stack: Stack, group: Resource) -> bool:
    """Return whether a group belongs to someone else, so that it is used but never changed."""
    return not group.ours and not stack.adopt


def _missing_mark(found: Resource | None) -> bool:
    return found is None or not found.ours


def _refuse_to_replace(stack: Stack, steps: list[PlanStep]) -> None:
    for step in steps:
        if step.action == "replace" and (found := servers.find(stack)) is not None:
            raise _must_be_replaced(stack, found, [step.detail])


def _must_be_replaced(stack: Stack, server: Resource, differences: list[str]) -> LarderError:
    """Return the error for a server that must be replaced."""
    if server.status == "ERROR":
        return servers.server_error(stack, server)
    return InputError(
        f"{server} isn't as declared, and must be replaced: {'; '.join(differences)}",
        next_step=servers.replacement_hint(server),
    )


def ensure_volume(stack: Stack, name: str) -> Resource:
    """Create, adopt or grow a declared volume, and return it."""
    wanted, found = stack.declaration.volume(name), volumes.find(stack, name)
    if found is None:
        stack.report("create", f"volume {name}, {wanted.gib} GiB")
        return volumes.create(stack, wanted)
    if not found.ours:
        _refuse_used_elsewhere(stack, found)
        volumes.adopt(stack, found, name)
    if found.status in ("creating", "downloading"):  # left by an interrupted run
        found = volumes.wait_for_status(stack, found, "available")
    if found.status == "error":
        volumes.wait_for_status(stack, found, "available")
    return volumes.grow(stack, found, wanted.gib) if found.raw.size < wanted.gib else found


def _refuse_used_elsewhere(stack: Stack, volume: Resource) -> None:
    """Raise InputError if another stack's server uses the volume, so that it isn't adopted."""
    holder, server = volumes.server_of(volume), servers.find(stack)
    if holder is not None and (server is None or server.id != holder):
        raise InputError(
            f"{volume} is attached to a server that isn't this stack's, {holder}", next_step="detach it there first"
        )


def _boot_volume(stack: Stack) -> str | None:
    """Return the id of the boot volume that outlives the server, or None if there is none."""
    assert stack.declaration.server
    wanted = stack.declaration.server.boot_volume
    if wanted is None or wanted.delete_on_termination:
        return None
    found = volumes.find(stack, volumes.BOOT)
    if found is None:
        stack.report("create", f"volume {volumes.cloud_name(stack, volumes.BOOT)}, {wanted.gib} GiB")
        return volumes.create_boot(stack, wanted, servers.find_image(stack, stack.declaration.server.image).id).id
    if not found.ours:
        _refuse_used_elsewhere(stack, found)
        volumes.adopt(stack, found, volumes.BOOT)
    if volumes.server_of(found) is None or servers.find(stack) is None:
        volumes.wait_for_status(stack, found, "available")
    return found.id


def _lease(stack: Stack, found: Lease | None) -> Lease | None:
    wanted = stack.declaration.lease
    if wanted is None:
        return None
    assert stack.declaration.server
    if found is not None:
        return leases.wait_active(stack, found)
    for lease in leases.find_all(stack):  # listed again, since an active lease must stay
        if lease.is_over:
            servers.require_lease_unused(stack, lease)
            leases.delete(stack, lease)
    stack.report("create", f"lease for {wanted.hours:g} h")
    return leases.create(stack, servers.find_flavor(stack, stack.declaration.server.flavor).id, wanted.hours)


def _server(stack: Stack, replace: bool) -> Resource:
    """Bring up boot volume, lease and server, and return the running server."""
    wanted, found = stack.declaration.server, servers.find(stack)
    assert wanted
    reserved = leases.find(stack) if stack.declaration.lease else None
    if found is not None and (differences := servers.differences(stack, found, reserved)):
        servers.require_replaceable(found, differences)
        if not replace:
            raise _must_be_replaced(stack, found, differences)
        _delete_for_replacement(stack, found)  # before its lease is deleted, which would delete it, too
        found = None
    boot_volume = _boot_volume(stack)  # a previous server must have released it
    lease = _lease(stack, reserved)
    if found is None:
        stack.report("create", f"server {stack.name}")
        server_setup.forget_host_key(stack)  # first: the new server has another key, even if the run is interrupted
        found = servers.create(stack, wanted, networks.find_group_ids(stack), lease, boot_volume)
    elif not found.ours:
        servers.adopt(stack, found)
    servers.start(stack, found)
    return servers.wait_active(stack, found)


def _delete_for_replacement(stack: Stack, server: Resource) -> None:
    """Delete our server to replace it."""
    for why in server_setup.unmount_all(stack, server, volumes.list_ours(stack)):
        stack.report("warning", f"not unmounted before the server is deleted: {why}")
    stack.report("delete", f"{server}, to replace it")
    servers.delete(stack, server)


def _connect(stack: Stack, server: Resource) -> None:
    """Set the server's security groups, address and volumes."""
    networks.update_server_groups(stack, server)
    if stack.declaration.floating_ip:
        networks.assign_address(stack, networks.find_address(stack), server)
    for volume in stack.declaration.volumes:
        volumes.attach(stack, volumes.require_volume(stack, volume.name), server)


def ensure_credentials(stack: Stack) -> credentials.S3Keys:
    """Create the S3 keys and write them to both files."""
    keys = credentials.create(stack)
    if not credentials.are_files_current(stack, keys):
        for path in credentials.write_files(stack, keys):
            stack.report("write", f"the S3 keys: {path}")
    return keys
