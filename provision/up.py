"""`up`: find, create and wait. A second run changes nothing, or resumes an interrupted one.

What the declaration names, the quota and taken names are checked before anything is created. Volumes and shares come
before the lease, so that they don't use up its time. The bucket, which takes only a moment, comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from larder.errors import ConfigurationError, InputError, LarderError, ServiceError
from provision import (
    addresses,
    capacity,
    credentials,
    lease_network,
    leases,
    networks,
    objects,
    quota,
    server_setup,
    servers,
    shares,
    volumes,
)
from provision.changes import Change
from provision.leases import Lease, LeaseBeginsLaterError
from provision.marks import Resource
from provision.plan import PlanStep, plan
from provision.reservations import NoCapacityError, network, requests
from provision.stack import Stack


def up(stack: Stack, replace: bool = False, wait: bool = False) -> list[PlanStep]:
    """Bring the stack to its declared state, and return the plan's steps.

    Raises LeaseBeginsLaterError, once all else is done, if the lease begins later and `wait` is false.
    """
    steps = _checked_plan(stack, replace)
    declared, later, is_new = stack.declaration, None, False
    _ensure_groups_and_storage(stack)
    if declared.server:
        try:
            is_new = _connected_server(stack, replace, wait)[1]
        except LeaseBeginsLaterError as error:
            later = error
    if declared.bucket and _missing_mark(objects.find(stack)):
        stack.report("create", f"bucket {declared.bucket.name}")
        objects.create(stack)
    if declared.credentials:
        ensure_credentials(stack)
    if later:
        raise later
    if declared.host:
        server_setup.set_up(stack, is_new)
    return steps


def _checked_plan(stack: Stack, replace: bool) -> list[PlanStep]:
    """Return the plan. Raises InputError before anything is created, if something would be refused later."""
    steps = plan(stack)
    if not replace:
        _refuse_to_replace(stack, steps)
    if any(step.action in ("create", "change") for step in steps):
        _check_quota(stack)
    return steps


def _ensure_groups_and_storage(stack: Stack) -> None:
    for group in stack.declaration.security_groups:
        if networks.find_group(stack, group) is None:
            stack.report("create", f"security group {group.name}")
            networks.create_group(stack, group)
        existing = networks.find_group(stack, group)
        assert existing
        if not _is_used_unchanged(stack, existing):
            networks.update_group(stack, group, existing)
    for volume in stack.declaration.volumes:
        ensure_volume(stack, volume.name)
    for share in stack.declaration.shares:
        ensure_share(stack, share.name)
    if stack.declaration.shares and stack.declaration.server and servers.find(stack) is None:
        # the server ended with its lease: someone else's may have its address
        shares.revoke_all(stack, shares.list_access(stack))


def _check_quota(stack: Stack) -> None:
    """Raise InputError if the quota is too small. A quota that can't be read is left to the services."""
    try:
        quota.check_quota(stack)
    except (ServiceError, ConfigurationError) as error:
        stack.report("note", f"the quota isn't checked: {error.what}")


def _is_used_unchanged(stack: Stack, group: Resource) -> bool:
    """Return whether a group belongs to someone else, so that it is used but never changed."""
    return not group.ours and not stack.adopt


def _missing_mark(existing: Resource | None) -> bool:
    return existing is None or not existing.ours


def _refuse_to_replace(stack: Stack, steps: list[PlanStep]) -> None:
    for step in steps:
        if step.action == "replace" and (existing := servers.find(stack)) is not None:
            raise _must_be_replaced(stack, existing, [step.detail])


def _must_be_replaced(stack: Stack, server: Resource, differences: Sequence[Change | str]) -> LarderError:
    """Return the error for a server that must be replaced."""
    if server.status == "ERROR":
        return servers.server_error(stack, server)
    return InputError(
        f"{server} isn't as declared, and must be replaced: {'; '.join(map(str, differences))}",
        next_step=servers.replacement_hint(server),
    )


def ensure_volume(stack: Stack, name: str) -> Resource:
    """Create, adopt or grow a declared volume, and return it."""
    declared, existing = stack.declaration.volume(name), volumes.find(stack, name)
    if existing is None:
        stack.report("create", f"volume {name}, {declared.gib} GiB")
        return volumes.create(stack, declared)
    if not existing.ours:
        _refuse_used_elsewhere(stack, existing)
        volumes.adopt(stack, existing, name)
    if existing.status in ("creating", "downloading"):  # left by an interrupted run
        existing = volumes.wait_for_status(stack, existing, "available")
    if existing.status == "error":
        volumes.wait_for_status(stack, existing, "available")
    return volumes.grow(stack, existing, declared.gib) if existing.raw.size < declared.gib else existing


def ensure_share(stack: Stack, name: str) -> Resource:
    """Create, adopt or grow a declared share, and return it."""
    declared, existing = stack.declaration.share(name), shares.find(stack, name)
    if existing is None:
        stack.report("create", f"share {name}, {declared.gib} GiB")
        return shares.create(stack, declared)
    if not existing.ours:
        shares.adopt(stack, existing, name)
    existing = shares.wait_available(stack, existing)  # an interrupted run may have left it in another state
    return shares.grow(stack, existing, declared.gib) if existing.raw.size < declared.gib else existing


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
    declared = stack.declaration.server.boot_volume
    if declared is None or declared.delete_on_termination:
        return None
    existing = volumes.find(stack, volumes.BOOT)
    if existing is None:
        stack.report("create", f"volume {volumes.cloud_name(stack, volumes.BOOT)}, {declared.gib} GiB")
        return volumes.create_boot(stack, declared, servers.find_image(stack, stack.declaration.server.image).id).id
    if not existing.ours:
        _refuse_used_elsewhere(stack, existing)
        volumes.adopt(stack, existing, volumes.BOOT)
    if volumes.server_of(existing) is None or servers.find(stack) is None:
        volumes.wait_for_status(stack, existing, "available")
    return existing.id


def _lease(stack: Stack, existing: Lease | None, wait: bool) -> Lease | None:
    """Return the lease once it is active, and create or move it first if needed."""
    declared, server, address = stack.declaration.lease, stack.declaration.server, stack.declaration.floating_ip
    if declared is None:
        return None
    assert server
    if existing is not None:
        return leases.wait_active(stack, _moved(stack, existing), wait)
    for lease in leases.find_all(stack):  # listed again, since an active lease must stay
        if lease.is_over:
            servers.require_lease_unused(stack, lease)
            leases.delete(stack, lease)
    reserves_address = address is not None and address.reserve
    wanted = requests(
        declared.node_type,
        "" if declared.node_type else servers.find_flavor(stack, server.flavor).id,
        servers.find_network(stack, address.network).id if address and reserves_address else None,
    )
    if own := stack.declaration.network:
        wanted.append(network(own.name, stack.mark, own.physical_network, own.usage_type))
    stack.report("create", f"lease for {declared.declared_hours:g} h, {leases.begin_in_words(declared)}")
    created = _explained(stack, lambda: leases.create(stack, declared, wanted))
    return leases.wait_active(stack, created, wait)


def _moved(stack: Stack, lease: Lease) -> Lease:
    """Return a lease that begins as declared."""
    assert stack.declaration.lease
    if not leases.must_move(stack, lease):
        return lease
    stack.report("change", f"lease {lease.id}: begin {leases.begin_in_words(stack.declaration.lease)}")
    return _explained(stack, lambda: leases.move(stack, lease))


def _explained(stack: Stack, ask: Callable[[], Lease]) -> Lease:
    """Ask for a lease. If there is no capacity, the error tells when there will be some, if the site does."""
    try:
        return ask()
    except NoCapacityError as error:
        raise capacity.explain(stack, error) from error


def _server(stack: Stack, replace: bool, wait: bool) -> Resource:
    """Bring up boot volume, lease and server, and return the running server."""
    declared, existing = stack.declaration.server, servers.find(stack)
    assert declared
    reserved = leases.current(stack)
    if existing is not None:
        existing = servers.wait_built(stack, existing)
    if existing is not None and (differences := servers.differences(stack, existing, reserved)):
        servers.require_replaceable(existing, differences)
        if not replace:
            raise _must_be_replaced(stack, existing, differences)
        delete_server(stack, existing, "it is replaced")  # before its lease is deleted, which would delete it, too
        existing = None
    boot_volume = _boot_volume(stack)  # a previous server must have released it
    lease = _lease(stack, reserved, wait)
    if stack.declaration.network:
        lease_network.ensure(stack, stack.declaration.network)
    is_new = existing is None
    if existing is None:
        stack.report("create", f"server {stack.name}")
        server_setup.forget_host_key(stack)  # first: the new server has another key, even if the run is interrupted
        existing = servers.create(stack, declared, networks.find_group_ids(stack), lease, boot_volume)
    elif not existing.ours:
        servers.adopt(stack, existing)
    servers.start(stack, existing)
    try:
        running = servers.wait_active(stack, existing)
    except ServiceError:
        if is_new:  # it may have failed because another run's server took its place
            servers.withdraw_if_later_server(stack, existing)
        raise
    if is_new:  # again, since two servers that were created in the same second may not have seen each other
        servers.withdraw_if_later_server(stack, running)
    return running


def delete_server(stack: Stack, server: Resource, why: str) -> None:
    """Delete our server and its access to shares, and nothing else, after volumes and shares are unmounted."""
    attached = volumes.list_ours(stack) if stack.clouds.compute.offers("block-storage") else []
    ours = shares.list_ours(stack) if stack.clouds.compute.offers("shared-file-system") else []
    for fault in server_setup.unmount_all(stack, server, attached, ours):
        stack.report("warning", f"not unmounted before the server is deleted: {fault}")
    stack.report("delete", f"{server}: {why}")
    servers.delete(stack, server)
    if ours:  # at once: someone else's server may get the address
        shares.revoke_all(stack, shares.list_access(stack))


def create_server(stack: Stack) -> Resource:
    """Create the server on the existing lease, with the existing address and volumes, and set it up.

    What is missing, such as a lease that is over, is created, too. Buckets and keys are left alone.
    """
    _checked_plan(stack, replace=False)
    _ensure_groups_and_storage(stack)
    server, is_new = _connected_server(stack)
    if stack.declaration.host:
        server_setup.set_up(stack, is_new)
    return server


def _connected_server(stack: Stack, replace: bool = False, wait: bool = False) -> tuple[Resource, bool]:
    """Return the running server with its groups, address and volumes, and whether it is new."""
    before = servers.find(stack)
    server = _server(stack, replace, wait)
    _connect(stack, server)
    return server, before is None or before.id != server.id


def _connect(stack: Stack, server: Resource) -> None:
    """Set the server's security groups, address and volumes, and its access to shares."""
    networks.update_server_groups(stack, server)
    if stack.declaration.floating_ip:
        addresses.assign(stack, addresses.find(stack), server)
    for volume in stack.declaration.volumes:
        volumes.attach(stack, volumes.require_volume(stack, volume.name), server)
    for share in stack.declaration.shares:
        shares.update_access(stack, shares.require_share(stack, share.name), server)


def ensure_credentials(stack: Stack) -> credentials.S3Keys:
    """Create the S3 keys and write them to both files."""
    keys = credentials.create(stack)
    if not credentials.are_files_current(stack, keys):
        credentials.write_files(stack, keys)
    return keys
