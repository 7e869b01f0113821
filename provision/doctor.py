"""`doctor`: check everything that `up` needs, and report each fault with its remedy. Changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from larder.errors import ConfigurationError, InputError, LarderError
from provision import leases, networks, objects, plan, servers, volumes
from provision.clouds import Cloud
from provision.declaration import CALLER, ServerSpec
from provision.marks import Resource
from provision.stack import Stack

RULES_OF_A_NEW_GROUP = 2
"""Neutron's default rules for outgoing traffic: one for IPv4 and one for IPv6."""


@dataclass(frozen=True)
class PreflightCheck:
    """One line of the diagnosis."""

    name: str
    found: str
    fault: LarderError | None = None


def run_checks(stack: Stack) -> Iterator[PreflightCheck]:
    """Run all checks independently of each other, but skip a site's checks if its login fails."""
    for cloud in stack.clouds.both:
        login = _check(f"log in ({cloud})", lambda cloud=cloud: _login(cloud))  # type: ignore[misc]
        yield login
        if login.fault is None:
            yield _check(f"region ({cloud})", lambda cloud=cloud: _region(cloud))  # type: ignore[misc]
            yield from _site(stack, cloud)


def _check(name: str, check: Callable[[], str]) -> PreflightCheck:
    try:
        return PreflightCheck(name, check())
    except LarderError as error:
        return PreflightCheck(name, "", error)


def _login(cloud: Cloud) -> str:
    access = cloud.access
    return f"{access.username} in project {access.project_name} ({cloud.project_id}), by {cloud.credential_kind}"


def _region(cloud: Cloud) -> str:
    cloud.check_region()
    return cloud.region or "any"


def _site(stack: Stack, cloud: Cloud) -> Iterator[PreflightCheck]:
    declared = stack.declaration
    if cloud is stack.clouds.compute and declared.server:
        server = declared.server
        yield _check("image", lambda: str(servers.find_image(stack, server.image).id))
        yield _check("flavor", lambda: _flavor(servers.find_flavor(stack, server.flavor)))
        yield _check("network", lambda: str(servers.find_network(stack, server.network).id))
        yield _check("key pair", lambda: str(servers.find_key_pair(stack, server.key).fingerprint))
        yield _check("private key", lambda: _private_key(stack))
        for name in plan.undeclared_groups(stack):
            yield _check(f"security group {name}", lambda name=name: _group(stack, name))  # type: ignore[misc]
    if cloud is stack.clouds.compute and declared.floating_ip:
        pool = declared.floating_ip.network
        yield _check("network of floating IPs", lambda: str(servers.find_network(stack, pool).id))
    if cloud is stack.clouds.compute and any(CALLER in group.sources for group in declared.security_groups):
        yield _check("this machine's address", lambda: networks.caller_network(stack))
    if cloud is stack.clouds.compute and (declared.server or declared.volumes or declared.security_groups):
        yield _check("quota", lambda: _quota(stack))
    if cloud is stack.clouds.compute and declared.lease:
        yield _check("lease", lambda: _lease(stack))
    if cloud is stack.clouds.objects and declared.bucket:
        yield _check("bucket", lambda: _bucket(stack))
    if cloud is stack.clouds.objects and declared.credentials:
        yield _check("keys for S3", lambda: _require_unrestricted(cloud, "S3 keys"))


def _flavor(flavor: Any) -> str:
    return f"{flavor.vcpus} cores, {flavor.ram} MB, {flavor.disk} GB"


def _private_key(stack: Stack) -> str:
    assert stack.declaration.server
    path = stack.declaration.server.private_key
    if path is not None and not path.exists():
        raise InputError(
            f"there is no private key {path}",
            next_step="correct [server] private_key, or leave it out: OpenSSH chooses",
        )
    return str(path or "OpenSSH chooses")


def _group(stack: Stack, name: str) -> str:
    candidates = networks.group_candidates(stack, name)
    if not candidates:
        raise servers.not_found_error(
            "security group", name, [], "declare it as [[security_group]], or correct the name"
        )
    return candidates[0].id


@dataclass(frozen=True)
class QuotaNeed:
    """The amount of a limited resource that the declaration still needs, and the amount left."""

    what: str
    needed: int
    left: float
    """Infinite if there is no limit."""

    def __str__(self) -> str:
        return f"{max(self.left, 0):g} {self.what} left" if math.isfinite(self.left) else f"{self.what} without limit"


def _need(what: str, needed: int, limit: int, used: int) -> QuotaNeed:
    return QuotaNeed(what, needed, math.inf if limit < 0 else limit - used)


def _quota(stack: Stack) -> str:
    """Describe the remaining quota. Raises InputError if the declaration needs more."""
    server = servers.find(stack) if stack.declaration.server else None
    needs = [*_storage(stack, server), *_network(stack)]
    if stack.declaration.server and server is None:
        needs += _compute(stack, stack.declaration.server)
    short = [f"{need}, {need.needed} needed" for need in needs if need.needed > max(need.left, 0)]
    if short:
        raise InputError(
            f"the project's quota is too small: {'; '.join(short)}",
            next_step="free something, declare less, or ask the site for more",
        )
    return ", ".join(map(str, needs))


def _compute(stack: Stack, server: ServerSpec) -> Iterator[QuotaNeed]:
    flavor = servers.find_flavor(stack, server.flavor)
    with stack.translate_errors("read the quota of servers"):
        quota = stack.clouds.compute.connection.compute.get_limits().absolute
    yield _need("servers", 1, quota.instances, quota.instances_used)
    yield _need("cores", flavor.vcpus, quota.total_cores, quota.total_cores_used)
    yield _need("MB of memory", flavor.ram, quota.total_ram, quota.total_ram_used)


def _storage(stack: Stack, server: Resource | None) -> Iterator[QuotaNeed]:
    """Yield the needs of volumes. Cinder also counts a boot volume that is deleted with its server."""
    needed = [(item.gib, volumes.find(stack, item.name)) for item in stack.declaration.volumes]
    boot = stack.declaration.server.boot_volume if stack.declaration.server else None
    if boot and server is None:
        needed.append((boot.gib, None if boot.delete_on_termination else volumes.find(stack, volumes.BOOT)))
    with stack.translate_errors("read the quota of volumes"):
        quota = stack.clouds.compute.connection.block_storage.get_limits().absolute
    more_gib = sum(max(gib - (existing.raw.size if existing else 0), 0) for gib, existing in needed)
    new = sum(existing is None for _, existing in needed)
    yield _need("volumes", new, quota.max_total_volumes, quota.total_volumes_used)
    yield _need("GiB of volumes", more_gib, quota.max_total_volume_gigabytes, quota.total_gigabytes_used)


def _network(stack: Stack) -> Iterator[QuotaNeed]:
    """Yield the needs of floating IPs, security groups and rules. Counts usage, which not every Neutron reports."""
    api, project = stack.clouds.compute.connection.network, stack.clouds.compute.project_id
    declared = stack.declaration
    new_address = bool(declared.floating_ip) and networks.find_address(stack) is None
    new_groups = [group for group in declared.security_groups if not networks.group_candidates(stack, group.name)]
    new_rules = sum(RULES_OF_A_NEW_GROUP + len(networks.declared_rules(stack, group)) for group in new_groups)
    with stack.translate_errors("read the quota of networks"):
        quota = api.get_quota(project)
        used = [
            len(list(list_all(project_id=project)))
            for list_all in (api.ips, api.security_groups, api.security_group_rules)
        ]
    yield _need("floating IPs", int(new_address), quota.floating_ips, used[0])
    yield _need("security groups", len(new_groups), quota.security_groups, used[1])
    yield _need("rules of security groups", new_rules, quota.security_group_rules, used[2])


def _lease(stack: Stack) -> str:
    """Describe the current lease, or the capacity for one, as far as the site tells."""
    lease = leases.find(stack)
    if lease is not None:
        return lease.resource.detail
    _require_unrestricted(stack.clouds.compute, "leases")
    declared = stack.declaration
    assert declared.server and declared.lease
    flavor = servers.find_flavor(stack, declared.server.flavor)
    return f"none yet; {leases.describe_capacity(stack, flavor, declared.lease.hours)}"


def _require_unrestricted(cloud: Cloud, what: str) -> str:
    if cloud.restricted:
        raise ConfigurationError(
            f"the application credential is restricted: it can't create {what}",
            next_step="create an unrestricted one, or use the password",
        )
    return "allowed"


def _bucket(stack: Stack) -> str:
    bucket = objects.find(stack)
    return bucket.detail if bucket else "none yet"
