"""`down`: takes away what this stack made, and nothing else.

Volumes and buckets stay unless they are named, adopted ones, too; servers and security groups that were adopted only
lose our mark, since somebody else made them. An error stops nothing: the rest is done, and what is left is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from larder.errors import ConfigurationError, InputError, LarderError, ServiceError
from larder.terminal import lines
from provision import leases, machine, networks, objects, servers, volumes
from provision.leases import Lease
from provision.marks import Thing
from provision.stack import Stack
from provision.status import Status, look


@dataclass(frozen=True)
class Removal:
    """One thing that goes."""

    thing: Thing
    remove: Callable[[], object]
    verb: str = "delete"


def removals(stack: Stack, status: Status, data: Sequence[str]) -> list[Removal]:
    """What `down` removes, in order; `data` names the volumes and buckets that go, too.

    ConfigurationError where a name is none of this stack's, or two things have it.
    """
    chosen = _chosen(stack, status, data)
    found = [Removal(item, _bind(networks.delete_address, stack, item)) for item in status.addresses]
    found += [_removal(stack, item, servers.delete, _release_server) for item in status.servers]
    going = {item.id for item in status.servers if not item.adopted}
    found += [Removal(item.thing, _bind(_end, stack, going, item)) for item in _endable(status)]
    found += [_removal(stack, item, networks.delete_group, networks.release_group) for item in status.groups]
    return found + [Removal(item, _bind(_delete_data, stack, going, item)) for item in chosen]


def _chosen(stack: Stack, status: Status, data: Sequence[str]) -> list[Thing]:
    """The volumes and buckets that `data` names, each once. A declared one may be gone already."""
    named = {name: _named(status, name) for name in data}
    declared = {item.name for item in stack.declaration.volumes} | {volumes.BOOT}
    declared |= {stack.declaration.bucket.name} if stack.declaration.bucket else set()
    unknown = [name for name, things in named.items() if not things and name not in declared]
    if unknown:
        known = {item.name for item in (*status.volumes, *status.buckets)} | {*map(volumes.part, status.volumes)}
        raise ConfigurationError.of_faults(
            [f"--delete-data {name}: no volume or bucket of the stack {stack.name} has that name" for name in unknown],
            next_step=f"there are: {', '.join(sorted(known - {''})) or 'none'}",
        )
    for name, things in named.items():
        if len(things) > 1:
            raise ConfigurationError.of_faults(
                [f"--delete-data {name}: {item}" for item in things],
                next_step="delete the one that is meant in the site's web interface, by its id",
            )
    return list({item.id: item for things in named.values() for item in things}.values())


def _named(status: Status, name: str) -> list[Thing]:
    """What is meant by a name: a volume's in the cloud or in the declaration, or a bucket's."""
    found = [item for item in status.volumes if name in {item.name, volumes.part(item)} - {""}]
    return found + [item for item in status.buckets if item.name == name]


def _endable(status: Status) -> list[Lease]:
    """The leases that may end: none that ends a server with it that stays, or that we don't see."""
    if any(what.startswith("servers:") for what in status.unseen):
        return []
    kept = {servers.flavor_name(item) for item in status.servers if item.adopted}
    return [lease for lease in status.leases if lease.flavor not in kept]


def _end(stack: Stack, going: set[str], lease: Lease) -> None:
    servers.refuse_to_end(stack, lease, going)
    leases.delete(stack, lease)


def _release_server(stack: Stack, server: Thing) -> None:
    """Leave an adopted server to its owner, as it runs."""
    networks.leave_our_groups(stack, server)
    servers.release(stack, server)


def _removal(
    stack: Stack, item: Thing, delete: Callable[..., object], release: Callable[..., object]
) -> Removal:  # fmt: skip
    if item.adopted:
        return Removal(item, _bind(release, stack, item), "let go")
    return Removal(item, _bind(delete, stack, item))


def _bind(remove: Callable[..., object], stack: Stack, *items: object) -> Callable[[], object]:
    return lambda: remove(stack, *items)


def _delete_data(stack: Stack, going: set[str], item: Thing) -> None:
    if item.kind == "volume":
        volumes.delete(stack, item if item.status == "deleting" else _detached(stack, going, item))
    else:
        objects.empty(stack, item)
        objects.delete(stack, item)


def _detached(stack: Stack, going: set[str], volume: Thing) -> Thing:
    holder = volumes.server_of(volumes.read(stack, volume))
    if holder is not None and holder not in going:
        raise InputError(f"{volume} is attached to a server that stays, {holder}", next_step="detach it there first")
    return volumes.detach(stack, volume)


def kept(status: Status, removed: Sequence[Removal]) -> list[Thing]:
    ids = {item.thing.id for item in removed}
    return [item for item in status.things if item.id not in ids]


def down(stack: Stack, removed: Sequence[Removal], status: Status) -> None:
    """Remove. Raises ServiceError in the end when something was not."""
    faults = [f"not seen: {what}" for what in status.unseen]
    for server in (item for item in status.servers if not item.adopted):
        for why in machine.unmount_all(stack, server, status.volumes):
            stack.say("warning", f"not unmounted before the server goes: {why}")
    for item in removed:
        stack.say(item.verb, f"{item.thing} {item.thing.detail}".rstrip())
        try:
            item.remove()
        except LarderError as error:
            faults.append(f"{item.thing}: {error.what}")
            stack.say("error", faults[-1])
    if faults:
        listed = (f"  - {fault}" for fault in faults)
        raise ServiceError(lines(f"{len(faults)} not removed:", *listed, *_left(stack, removed)),
                           next_step="run `down` again: it goes on with what is left")  # fmt: skip


def _left(stack: Stack, removed: Sequence[Removal]) -> list[str]:
    ids = {item.thing.id for item in removed}
    try:
        left = [item for item in look(stack).things if item.id in ids]
    except LarderError:  # the faults above say why
        return []
    return ["still there:", *(f"  - {item} {item.status}" for item in left)] if left else []
