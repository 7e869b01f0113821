"""`up`: finds, creates, waits. Run again it changes nothing, and goes on where it was interrupted.

Volumes come before the lease, so that no minute of it is spent on them; the bucket, which takes a moment, comes last.
"""

from __future__ import annotations

from larder.errors import InputError, LarderError
from provision import credentials, leases, machine, networks, objects, servers, volumes
from provision.leases import Lease
from provision.marks import Thing
from provision.plan import Step, plan
from provision.stack import Stack


def up(stack: Stack, replace: bool = False) -> list[Step]:
    """Bring the stack about; returns what there was to do."""
    steps = plan(stack)
    if not replace:
        _refuse_to_replace(stack, steps)
    wanted = stack.declaration
    for group in wanted.security_groups:
        if networks.find_group(stack, group) is None:
            stack.say("create", f"security group {group.name}")
            networks.create_group(stack, group)
        found = networks.find_group(stack, group)
        assert found
        if not _as_it_is(stack, found):
            networks.bring_group_up(stack, group, found)
    for volume in wanted.volumes:
        bring_volume_up(stack, volume.name)
    if wanted.server:
        _connect(stack, _server(stack, replace))
    if wanted.bucket and _missing_mark(objects.find(stack)):
        stack.say("create", f"bucket {wanted.bucket.name}")
        objects.create(stack)
    if wanted.credentials:
        bring_credentials_up(stack)
    if wanted.host:
        machine.set_up(stack)
    return steps


def _as_it_is(stack: Stack, group: Thing) -> bool:
    """Whether a group is somebody else's, which is used and never changed."""
    return not group.ours and not stack.adopt


def _missing_mark(found: Thing | None) -> bool:
    return found is None or not found.ours


def _refuse_to_replace(stack: Stack, steps: list[Step]) -> None:
    for step in steps:
        if step.action == "replace" and (found := servers.find(stack)) is not None:
            raise _must_be_replaced(stack, found, [step.detail])


def _must_be_replaced(stack: Stack, server: Thing, differences: list[str]) -> LarderError:
    """The error for a server that only another one can take the place of."""
    if server.status == "ERROR":
        return servers.failed(stack, server)
    return InputError(
        f"{server} isn't as declared, and only another one can be: {'; '.join(differences)}",
        next_step=servers.what_replacing_does(server),
    )


def bring_volume_up(stack: Stack, name: str) -> Thing:
    """A declared volume, with at least its declared size."""
    wanted, found = stack.declaration.volume(name), volumes.find(stack, name)
    if found is None:
        stack.say("create", f"volume {name}, {wanted.gib} GiB")
        return volumes.create(stack, wanted)
    if not found.ours:
        _refuse_used_elsewhere(stack, found)
        volumes.adopt(stack, found, name)
    if found.status in ("creating", "downloading"):  # of a run that was interrupted
        found = volumes.wait_for(stack, found, "available")
    if found.status == "error":
        volumes.wait_for(stack, found, "available")
    return volumes.grow(stack, found, wanted.gib) if found.raw.size < wanted.gib else found


def _refuse_used_elsewhere(stack: Stack, volume: Thing) -> None:
    """A volume that somebody's server uses isn't adopted."""
    holder, server = volumes.server_of(volume), servers.find(stack)
    if holder is not None and (server is None or server.id != holder):
        raise InputError(
            f"{volume} is attached to a server that isn't this stack's, {holder}", next_step="detach it there first"
        )


def _boot_volume(stack: Stack) -> str | None:
    """The id of the volume that the server starts from and that outlives it."""
    assert stack.declaration.server
    wanted = stack.declaration.server.boot_volume
    if wanted is None or wanted.delete_on_termination:
        return None
    found = volumes.find(stack, volumes.BOOT)
    if found is None:
        stack.say("create", f"volume {volumes.cloud_name(stack, volumes.BOOT)}, {wanted.gib} GiB")
        return volumes.create_boot(stack, wanted, servers.image(stack, stack.declaration.server.image).id).id
    if not found.ours:
        _refuse_used_elsewhere(stack, found)
        volumes.adopt(stack, found, volumes.BOOT)
    if volumes.server_of(found) is None or servers.find(stack) is None:
        volumes.wait_for(stack, found, "available")
    return found.id


def _lease(stack: Stack, found: Lease | None) -> Lease | None:
    wanted = stack.declaration.lease
    if wanted is None:
        return None
    assert stack.declaration.server
    if found is not None:
        return leases.wait_active(stack, found)
    for lease in leases.find_all(stack):  # asked once more, since one that runs must stay
        if lease.over:
            servers.refuse_to_end(stack, lease)
            leases.delete(stack, lease)
    stack.say("create", f"lease for {wanted.hours:g} h")
    return leases.create(stack, servers.flavor(stack, stack.declaration.server.flavor).id, wanted.hours)


def _server(stack: Stack, replace: bool) -> Thing:
    """The server, running; boot volume and lease come before it."""
    wanted, found = stack.declaration.server, servers.find(stack)
    assert wanted
    reserved = leases.find(stack) if stack.declaration.lease else None
    if found is not None and (differences := servers.differences(stack, found, reserved)):
        servers.refuse_unlike(found, differences)
        if not replace:
            raise _must_be_replaced(stack, found, differences)
        _make_room(stack, found)  # before its lease ends, which would end it, too
        found = None
    boot_volume = _boot_volume(stack)  # which a server before must have let go
    lease = _lease(stack, reserved)
    if found is None:
        stack.say("create", f"server {stack.name}")
        machine.forget_host_key(stack)  # first: the new one's is another, whatever comes between
        found = servers.create(stack, wanted, networks.ids_of_groups(stack), lease, boot_volume)
    elif not found.ours:
        servers.adopt(stack, found)
    servers.start(stack, found)
    return servers.wait_active(stack, found)


def _make_room(stack: Stack, server: Thing) -> None:
    """Delete a server of ours that is to be replaced."""
    for why in machine.unmount_all(stack, server, volumes.ours(stack)):
        stack.say("warning", f"not unmounted before the server goes: {why}")
    stack.say("delete", f"{server}, to replace it")
    servers.delete(stack, server)


def _connect(stack: Stack, server: Thing) -> None:
    """Security groups, address and volumes."""
    networks.bring_server_up(stack, server)
    if stack.declaration.floating_ip:
        networks.bring_address_up(stack, networks.find_address(stack), server)
    for volume in stack.declaration.volumes:
        volumes.attach(stack, volumes.need(stack, volume.name), server)


def bring_credentials_up(stack: Stack) -> credentials.Keys:
    """S3 keys, in both files."""
    keys = credentials.create(stack)
    if not credentials.up_to_date(stack, keys):
        for path in credentials.write(stack, keys):
            stack.say("write", f"the S3 keys: {path}")
    return keys
