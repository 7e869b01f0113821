"""Compute what `up` would do, without changing anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from larder.errors import InputError, ServiceError
from provision import (
    addresses,
    capacity,
    credentials,
    lease_network,
    leases,
    networks,
    objects,
    servers,
    shares,
    volumes,
)
from provision.changes import Change
from provision.clouds import SERVICES, Cloud
from provision.declaration import NetworkSpec, SecurityGroupSpec, ServerSpec, ShareSpec, VolumeSpec
from provision.leases import Lease
from provision.marks import Resource
from provision.reservations import NoCapacityError
from provision.stack import Stack

TO_DO = ("create", "change", "replace", "adopt", "delete")


@dataclass(frozen=True)
class PlanStep:
    """One line of the plan."""

    action: str
    """create, keep, change, replace, adopt, delete; use: someone else's, used unchanged."""
    kind: str
    name: str
    detail: str = ""
    changes: tuple[Change, ...] = ()
    """Present and declared values, if the resource exists and isn't as declared."""

    @property
    def to_do(self) -> bool:
        """Whether `up` would do something."""
        return self.action in TO_DO


def count(steps: Sequence[PlanStep]) -> dict[str, int]:
    """Return the numbers of resources to create, change and delete. A replaced one is deleted and created."""
    actions = [step.action for step in steps]
    replaced = actions.count("replace")
    return {
        "create": actions.count("create") + replaced,
        "change": actions.count("change") + actions.count("adopt"),
        "delete": actions.count("delete") + replaced,
    }


def summarize(steps: Sequence[PlanStep]) -> str:
    """Return the numbers in words: 3 to create, 1 to change, 0 to delete."""
    return ", ".join(f"{number} to {action}" for action, number in count(steps).items())


def as_fields(steps: Sequence[PlanStep]) -> dict[str, Any]:
    """Return the steps and their numbers as fields for JSON."""
    fields = [
        {**asdict(step), "changes": [{"what": item.what, "old": item.old, "new": item.new} for item in step.changes]}
        for step in steps
    ]
    return {"steps": fields, "summary": count(steps)}


def plan(stack: Stack) -> list[PlanStep]:
    """Return a step for every declared resource, in `up`'s order.

    Raises an error before anything is created if something that the declaration names doesn't exist, or a name is
    taken.
    """
    check_references(stack)
    declared = stack.declaration
    steps = [_group(stack, group) for group in declared.security_groups]
    steps += [_volume(stack, volume) for volume in declared.volumes]
    steps += [_share(stack, share) for share in declared.shares]
    if declared.server:
        steps += _machine(stack)
    if declared.bucket:
        existing = objects.find(stack)
        steps.append(_simple("bucket", declared.bucket.name, existing))
    if declared.credentials:
        steps.append(_credentials(stack))
    return steps


def check_references(stack: Stack) -> None:
    """Check that the sites have what the declaration names. Raises the first fault."""
    for cloud in stack.clouds.both:
        cloud.check_region()
        cloud.require(*needed_services(stack, cloud))
    declared = stack.declaration.server
    if declared:
        servers.require_image_fits(stack, declared)
        servers.find_key_pair(stack, declared.key)
        find_private_key(declared)
        find_server_network(stack, declared)
    if stack.declaration.floating_ip:
        servers.find_network(stack, stack.declaration.floating_ip.network)
    for name in undeclared_groups(stack):
        networks.require_one_group(stack, name)
    types = [item.type for item in stack.declaration.volumes]
    types += [declared.boot_volume.type] if declared and declared.boot_volume else []
    for name in sorted({name for name in types if name}):
        volumes.require_type(stack, name)
    for name in sorted({item.type for item in stack.declaration.shares if item.type}):
        shares.require_type(stack, name)


def find_server_network(stack: Stack, server: ServerSpec) -> str:
    """Return the id of the server's network, in words. Raises InputError if it is neither there nor to be reserved."""
    if stack.declaration.network and stack.declaration.network.name == server.network:
        return "reserved with the lease"
    return str(servers.find_network(stack, server.network).id)


def find_private_key(server: ServerSpec) -> str:
    """Return the path of the private key, in words. Raises InputError if there is no such file."""
    path = server.private_key
    if path is not None and not path.exists():
        raise InputError(
            f"there is no private key {path}",
            next_step="correct [server] private_key, or leave it out: OpenSSH chooses",
        )
    return str(path or "OpenSSH chooses")


def needed_services(stack: Stack, cloud: Cloud) -> list[str]:
    """Return the services that a site must offer for the declaration, in the order of the catalog's table."""
    declared, needed = stack.declaration, set()
    if cloud is stack.clouds.compute:
        needed |= {"compute", "image", "network"} if declared.server else set()
        needed |= {"network"} if declared.security_groups or declared.floating_ip else set()
        has_boot_volume = declared.server is not None and declared.server.boot_volume is not None
        needed |= {"block-storage"} if declared.volumes or has_boot_volume else set()
        needed |= {"shared-file-system"} if declared.shares else set()
        needed |= {"reservation"} if declared.lease else set()
    if cloud is stack.clouds.objects:
        needed |= {"object-store"} if declared.bucket else set()
        needed |= {"identity"} if declared.credentials else set()
    return [service for service in SERVICES if service in needed]


def undeclared_groups(stack: Stack) -> list[str]:
    """Return the server's security groups that aren't declared."""
    declared = {group.name for group in stack.declaration.security_groups}
    named = stack.declaration.server.security_groups if stack.declaration.server else ()
    return [name for name in named if name not in declared]


def _simple(kind: str, name: str, existing: Resource | None) -> PlanStep:
    if existing is None:
        return PlanStep("create", kind, name)
    return PlanStep("keep" if existing.ours else "adopt", kind, name, f"{existing.id} {existing.detail}".strip())


def _group(stack: Stack, group: SecurityGroupSpec) -> PlanStep:
    existing = networks.find_group(stack, group)
    rules = sorted(networks.declared_rules(stack, group))
    if existing is None:
        return PlanStep("create", "security group", group.name, _in_words(rules))
    if not existing.ours and not stack.adopt:
        return PlanStep("use", "security group", group.name, existing.id)
    missing, stale = networks.compare_rules(stack, group, existing)
    texts = [f"let in {_in_words(sorted(missing))}"] if missing else []
    texts += [f"shut out {_in_words(sorted(stale))}"] if stale else []
    changes = [Change("rule", "", _in_words([rule])) for rule in sorted(missing)]
    changes += [Change("rule", _in_words([rule]), "") for rule in sorted(stale)]
    action = "adopt" if not existing.ours else "change" if changes else "keep"
    detail = "; ".join([existing.id, *texts])
    return PlanStep(action, "security group", group.name, detail, tuple(changes))


def _in_words(rules: list[networks.Rule]) -> str:
    return ", ".join(f"{port} from {source}" for port, source in rules)


def _volume(stack: Stack, volume: VolumeSpec) -> PlanStep:
    existing = volumes.find(stack, volume.name)
    if existing is None:
        return PlanStep("create", "volume", volume.name, f"{volume.gib} GiB")
    if not existing.ours:
        return PlanStep("adopt", "volume", volume.name, f"{existing.id} {existing.detail}")
    if volume.mount and stack.declaration.host and volumes.is_grown(existing):
        return PlanStep("change", "volume", volume.name, f"{existing.id} grow its file system")
    if existing.raw.size < volume.gib:
        detail = f"{existing.id} grow from {existing.raw.size} to {volume.gib} GiB"
        change = Change("gib", str(existing.raw.size), str(volume.gib))
        return PlanStep("change", "volume", volume.name, detail, (change,))
    return PlanStep("keep", "volume", volume.name, f"{existing.id} {existing.detail}")


def _share(stack: Stack, share: ShareSpec) -> PlanStep:
    existing = shares.find(stack, share.name)
    if existing is None:
        return PlanStep("create", "share", share.name, f"{share.gib} GiB")
    shares.require_nfs(existing)
    if not existing.ours:
        return PlanStep("adopt", "share", share.name, f"{existing.id} {existing.detail}")
    if existing.raw.size < share.gib:
        detail = f"{existing.id} grow from {existing.raw.size} to {share.gib} GiB"
        return PlanStep("change", "share", share.name, detail, (Change("gib", str(existing.raw.size), str(share.gib)),))
    return PlanStep("keep", "share", share.name, f"{existing.id} {existing.detail}")


def _machine(stack: Stack) -> Iterator[PlanStep]:
    """Yield the steps of boot volume, lease, server, address, attachments and access to shares."""
    declared = stack.declaration.server
    assert declared
    if declared.boot_volume and not declared.boot_volume.delete_on_termination:
        yield _simple("volume", volumes.cloud_name(stack, volumes.BOOT), volumes.find(stack, volumes.BOOT))
    lease = None
    if stack.declaration.lease:
        lease = leases.current(stack)
        for over in leases.find_all(stack) if lease is None else ():
            if over.is_over:
                yield PlanStep("delete", "lease", over.id, over.resource.detail)
        yield _lease(stack, lease)
    if stack.declaration.network:
        yield _network(stack, stack.declaration.network)
    existing = servers.find(stack)
    server = _server(stack, existing, lease)
    yield server
    if stack.declaration.floating_ip:
        yield _address(stack, existing if server.action != "replace" else None)
    for volume in stack.declaration.volumes:
        yield _attachment(stack, volume, existing if server.action != "replace" else None)
    for share in stack.declaration.shares:
        yield _access(stack, share, existing if server.action != "replace" else None)


def _lease(stack: Stack, lease: Lease | None) -> PlanStep:
    declared = stack.declaration.lease
    assert declared
    if lease is None:
        leases.check_start(declared)
        name = f"for {declared.declared_hours:g} h"
        return PlanStep("create", "lease", name, f"{leases.begin_in_words(declared)}; {_capacity(stack)}")
    if lease.is_used:
        return PlanStep("use", "lease", lease.name, f"{lease.id} {lease.resource.detail}")
    leases.require_as_declared(stack, lease)
    if leases.must_move(stack, lease):
        change = Change("start", f"{lease.start:{leases.FORMAT}}", leases.begin_in_words(declared))
        return PlanStep("change", "lease", lease.id, str(change), (change,))
    return PlanStep("keep", "lease", lease.id, lease.resource.detail)


def _network(stack: Stack, declared: NetworkSpec) -> PlanStep:
    existing = lease_network.find(stack, declared)
    if existing is None:
        lease_network.require_name_free(stack, declared)
        return PlanStep("create", "network", declared.name, f"{declared.cidr}, with the lease")
    if not lease_network.is_connected(stack, existing):
        return PlanStep("change", "network", declared.name, f"{existing.id} its subnet and router")
    return PlanStep("keep", "network", declared.name, existing.id)


def _capacity(stack: Stack) -> str:
    """Return what is free, in words. Reading it may fail, and a lease be created nevertheless."""
    try:
        return capacity.describe(stack).text
    except ServiceError as error:
        return f"it is unknown what is free: {error.what}"
    except NoCapacityError as error:
        return error.what


def _server(stack: Stack, existing: Resource | None, lease: Lease | None) -> PlanStep:
    if existing is None:
        return PlanStep("create", "server", stack.name)
    differences = servers.differences(stack, existing, lease)
    if differences:
        servers.require_replaceable(existing, differences)
        detail = "; ".join([existing.id, *map(str, differences)])
        return PlanStep("replace", "server", stack.name, detail, tuple(differences))
    if not existing.ours:
        return PlanStep("adopt", "server", stack.name, existing.id)
    if existing.status == "SHUTOFF":
        change = Change("status", "SHUTOFF", "ACTIVE")
        return PlanStep("change", "server", stack.name, f"{existing.id} start it", (change,))
    groups_to_come = any(networks.find_group(stack, group) is None for group in stack.declaration.security_groups)
    if not groups_to_come and not networks.is_in_groups(stack, existing):
        return PlanStep("change", "server", stack.name, f"{existing.id} its security groups")
    return PlanStep("keep", "server", stack.name, existing.id)


def _address(stack: Stack, server: Resource | None) -> PlanStep:
    existing = addresses.find(stack)
    if existing is None:
        assert stack.declaration.floating_ip
        return PlanStep("create", "floating IP", "", "with the lease" if stack.declaration.floating_ip.reserve else "")
    addresses.require_here(stack, existing, {item.id for item in servers.list_ours(stack)})
    if server is None or existing.raw.port_id not in addresses.ports_of(stack, server):  # none while it is being built
        change = Change("port", str(existing.raw.port_id or ""), "the server's")
        return PlanStep("change", "floating IP", existing.name, "to the server", (change,))
    return PlanStep("keep", "floating IP", existing.name, existing.id)


def _attachment(stack: Stack, volume: VolumeSpec, server: Resource | None) -> PlanStep:
    existing = volumes.find(stack, volume.name)
    if existing is not None:
        _require_not_elsewhere(stack, existing)
    at_server = existing is not None and server is not None and volumes.server_of(existing) == server.id
    return PlanStep(
        "keep" if at_server else "create", "attachment", volume.name, f"at {volume.mount}" if volume.mount else ""
    )


def _access(stack: Stack, share: ShareSpec, server: Resource | None) -> PlanStep:
    existing = shares.find(stack, share.name)
    place = f"at {share.mount}" if share.mount else ""
    if existing is None or server is None or existing.status != "available":
        return PlanStep("create", "access", share.name, place)
    difference = shares.compare_access(stack, existing, server)
    changes = [Change("access", "", address) for address in difference.missing]
    changes += [Change("access", rule.raw["access_to"], "") for rule in difference.stale]
    texts = [f"for {', '.join(difference.missing)}"] if difference.missing else []
    texts += (
        [f"no longer for {', '.join(rule.raw['access_to'] for rule in difference.stale)}"] if difference.stale else []
    )
    action = "keep" if not changes else "change" if difference.stale else "create"
    return PlanStep(action, "access", share.name, " ".join([*texts, place]).strip(), tuple(changes))


def _require_not_elsewhere(stack: Stack, volume: Resource) -> None:
    holder = volumes.server_of(volume)
    if holder is not None and holder not in {item.id for item in servers.candidates(stack)}:
        raise InputError(f"{volume} is attached to another server, {holder}", next_step="detach it there first")


def _credentials(stack: Stack) -> PlanStep:
    existing = credentials.find(stack)
    if existing is None:
        return PlanStep("create", "credentials", "S3 keys")
    if not credentials.are_files_current(stack, existing):
        return PlanStep("change", "credentials", existing.access, "write the files")
    return PlanStep("keep", "credentials", existing.access)
