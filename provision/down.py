"""`down`: delete what this stack created, and nothing else.

Volumes, shares and buckets stay unless they are named, including adopted ones. Adopted servers and security groups only
lose our mark, since someone else created them. After an error, the rest is still done, and the remains are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from larder.errors import ConfigurationError, InputError, LarderError, ServiceError
from larder.terminal import join_lines
from provision import addresses, lease_network, leases, marks, networks, objects, server_setup, servers, shares, volumes
from provision.leases import Lease
from provision.marks import Resource
from provision.stack import Stack
from provision.status import Status, read_status


@dataclass(frozen=True)
class Removal:
    """A resource to delete or release."""

    resource: Resource
    remove: Callable[[], object]
    verb: str = "delete"


def removals(stack: Stack, status: Status, data: Sequence[str]) -> list[Removal]:
    """Return what `down` removes, in order. `data` names volumes, shares and buckets to delete, too.

    Raises ConfigurationError if a name isn't in this stack, or is ambiguous.
    """
    chosen = _chosen(stack, status, data)
    removals = _address_removals(stack, status)
    removals += [_removal(stack, item, servers.delete, _release_server) for item in status.servers]
    removals += [Removal(item, _bind(shares.revoke, stack, item)) for item in _useless_access(status)]
    removals += [Removal(item, _bind(lease_network.delete_router, stack, item)) for item in status.routers]
    removed_ids = {item.id for item in status.servers if not item.adopted}
    removals += [
        Removal(item.resource, _bind(_delete_lease, stack, removed_ids, item)) for item in _deletable_leases(status)
    ]
    removals += [_removal(stack, item, networks.delete_group, networks.release_group) for item in status.groups]
    return removals + [Removal(item, _bind(_delete_data, stack, removed_ids, item)) for item in chosen]


def _address_removals(stack: Stack, status: Status) -> list[Removal]:
    """Return what to do with floating IPs. One that was moved to someone else's server only loses our mark.

    If servers could not be listed, it is unknown whose server an address is at: then it stays.
    """
    server_ids = {item.id for item in status.servers}
    removals = []
    for item in status.addresses:
        if item.raw.port_id and not _are_servers_known(status):
            continue
        if holder := addresses.holder_elsewhere(stack, item, server_ids):
            moved = replace(item, detail=f"which was moved to {holder}")
            removals.append(Removal(moved, _bind(addresses.release, stack, item), "release"))
        else:
            removals.append(Removal(item, _bind(addresses.delete, stack, server_ids, item)))
    return removals


def _useless_access(status: Status) -> tuple[Resource, ...]:
    """Return our access rules, unless a server stays that may use them."""
    stays = any(item.adopted for item in status.servers)
    return () if stays or not _are_servers_known(status) else status.access


def _are_servers_known(status: Status) -> bool:
    return not any(what.startswith("servers:") for what in status.unseen)


def _chosen(stack: Stack, status: Status, data: Sequence[str]) -> list[Resource]:
    """Return the volumes, shares and buckets that `data` names, each once. A declared one may already be gone."""
    by_name = {name: _find_named(status, name) for name in data}
    declared = {item.name for item in (*stack.declaration.volumes, *stack.declaration.shares)} | {volumes.BOOT}
    declared |= {stack.declaration.bucket.name} if stack.declaration.bucket else set()
    unknown = [name for name, resources in by_name.items() if not resources and name not in declared]
    if unknown:
        marked = (*status.volumes, *status.shares)
        known = {item.name for item in (*marked, *status.buckets)} | {*map(marks.declared_name, marked)}
        raise ConfigurationError.of_faults(
            [
                f"--delete-data {name}: no volume, share or bucket of the stack {stack.name} has that name"
                for name in unknown
            ],
            next_step=f"there are: {', '.join(sorted(known - {''})) or 'none'}",
        )
    for name, resources in by_name.items():
        if len(resources) > 1:
            raise ConfigurationError.of_faults(
                [f"--delete-data {name}: {item}" for item in resources],
                next_step="delete the right one in the site's web interface, by its id",
            )
    return list({item.id: item for resources in by_name.values() for item in resources}.values())


def _find_named(status: Status, name: str) -> list[Resource]:
    """Return the volumes, shares and buckets with a name, in the cloud or in the declaration."""
    marked = (*status.volumes, *status.shares)
    matching = [item for item in marked if name in {item.name, marks.declared_name(item)} - {""}]
    return matching + [item for item in status.buckets if item.name == name]


def _deletable_leases(status: Status) -> list[Lease]:
    """Return the leases that may be deleted: none whose server stays, and none if servers could not be listed."""
    if not _are_servers_known(status):
        return []
    kept = [item for item in status.servers if item.adopted]
    return [lease for lease in status.leases if not any(servers.runs_on(item, lease) for item in kept)]


def _delete_lease(stack: Stack, removed_ids: set[str], lease: Lease) -> None:
    servers.require_lease_unused(stack, lease, removed_ids)
    leases.delete(stack, lease)


def _release_server(stack: Stack, server: Resource) -> None:
    """Release an adopted server, which keeps running."""
    networks.leave_our_groups(stack, server)
    servers.release(stack, server)


def _removal(stack: Stack, item: Resource, delete: Callable[..., object], release: Callable[..., object]) -> Removal:
    if item.adopted:
        return Removal(item, _bind(release, stack, item), "release")
    return Removal(item, _bind(delete, stack, item))


def _bind(remove: Callable[..., object], stack: Stack, *items: object) -> Callable[[], object]:
    return lambda: remove(stack, *items)


def _delete_data(stack: Stack, removed_ids: set[str], item: Resource) -> None:
    if item.kind == "volume":
        volumes.delete(stack, item if item.status == "deleting" else _detached(stack, removed_ids, item))
    elif item.kind == "share":
        shares.delete(stack, item)
    else:
        objects.empty(stack, item)
        objects.delete(stack, item)


def _detached(stack: Stack, removed_ids: set[str], volume: Resource) -> Resource:
    holder = volumes.server_of(volumes.read(stack, volume))
    if holder is not None and holder not in removed_ids:
        raise InputError(f"{volume} is attached to a server that stays, {holder}", next_step="detach it there first")
    return volumes.detach(stack, volume)


def kept(status: Status, removed: Sequence[Removal]) -> list[Resource]:
    """Return the resources that remain after these removals."""
    ids = {item.resource.id for item in removed}
    return [item for item in status.resources if item.id not in ids]


def down(stack: Stack, removed: Sequence[Removal], status: Status) -> None:
    """Remove everything possible, then raise ServiceError if something could not be removed."""
    faults = [f"not listed: {what}" for what in status.unseen]
    for server in (item for item in status.servers if not item.adopted):
        for fault in server_setup.unmount_all(stack, server, status.volumes, status.shares):
            stack.report("warning", f"not unmounted before the server is deleted: {fault}")
    for item in removed:
        stack.report(item.verb, f"{item.resource} {item.resource.detail}".rstrip())
        try:
            item.remove()
        except LarderError as error:
            faults.append(f"{item.resource}: {error.what}")
            stack.report("error", faults[-1])
    if faults:
        listed = (f"  - {fault}" for fault in faults)
        raise ServiceError(
            join_lines(f"{len(faults)} not removed:", *listed, *_list_remaining(stack, removed)),
            next_step="run `down` again: it continues with the rest",
        )


def _list_remaining(stack: Stack, removed: Sequence[Removal]) -> list[str]:
    ids = {item.resource.id for item in removed}
    try:
        left = [item for item in read_status(stack).resources if item.id in ids]
    except LarderError:  # the faults above include the reason
        return []
    return ["still there:", *(f"  - {item} {item.status}" for item in left)] if left else []
