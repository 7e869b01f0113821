"""Compare what a declaration still needs with the project's quota, before anything is created."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from larder.errors import InputError
from provision import addresses, networks, servers, shares, volumes
from provision.declaration import ServerSpec
from provision.marks import Resource
from provision.stack import Stack

RULES_OF_A_NEW_GROUP = 2
"""Neutron's default rules for outgoing traffic: one for IPv4 and one for IPv6."""


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


def check_quota(stack: Stack) -> str:
    """Describe the remaining quota. Raises InputError if the declaration needs more."""
    declared = stack.declaration
    server = servers.find(stack) if declared.server else None
    needs: list[QuotaNeed] = []
    if declared.volumes or (declared.server and declared.server.boot_volume):
        needs += _storage(stack, server)
    if declared.shares:
        needs += _shares(stack)
    if declared.security_groups or declared.floating_ip:
        needs += _network(stack)
    if declared.server and server is None:
        needs += _compute(stack, declared.server)
    short = [f"{need}, {need.needed} needed" for need in needs if need.needed > max(need.left, 0)]
    if short:
        raise InputError(
            f"the project's quota is too small: {'; '.join(short)}",
            next_step="free something, declare less, or ask the site for more",
        )
    return ", ".join(map(str, needs)) or "nothing more is needed"


def _compute(stack: Stack, server: ServerSpec) -> Iterator[QuotaNeed]:
    flavor = servers.find_flavor(stack, server.flavor)
    with stack.translate_errors("read the quota of servers"):
        quota = stack.api("compute").get_limits().absolute
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
        quota = stack.api("block-storage").get_limits().absolute
    more_gib = sum(max(gib - (existing.raw.size if existing else 0), 0) for gib, existing in needed)
    new = sum(existing is None for _, existing in needed)
    yield _need("volumes", new, quota.max_total_volumes, quota.total_volumes_used)
    yield _need("GiB of volumes", more_gib, quota.max_total_volume_gigabytes, quota.total_gigabytes_used)


def _shares(stack: Stack) -> Iterator[QuotaNeed]:
    """Yield the needs of shares."""
    needed = [(item.gib, shares.find(stack, item.name)) for item in stack.declaration.shares]
    quota = shares.read_limits(stack)
    more_gib = sum(max(gib - (existing.raw.size if existing else 0), 0) for gib, existing in needed)
    new = sum(existing is None for _, existing in needed)
    yield _need("shares", new, quota["maxTotalShares"], quota["totalSharesUsed"])
    yield _need("GiB of shares", more_gib, quota["maxTotalShareGigabytes"], quota["totalShareGigabytesUsed"])


def _network(stack: Stack) -> Iterator[QuotaNeed]:
    """Yield the needs of floating IPs, security groups and rules. Counts usage, which not every Neutron reports."""
    api, project = stack.api("network"), stack.clouds.compute.project_id
    declared = stack.declaration
    new_address = bool(declared.floating_ip) and addresses.find(stack) is None
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
