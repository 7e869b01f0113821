"""Security groups."""

from __future__ import annotations

import ipaddress
from typing import Any

from openstack import exceptions as sdk

from larder.errors import InputError
from larder.terminal import join_lines
from provision import answers, caller, marks
from provision.clouds import create_once
from provision.concurrency import withdraw_if_later
from provision.declaration import CALLER, SecurityGroupSpec
from provision.marks import Resource
from provision.stack import Stack

EVERYWHERE = {"IPv4": "0.0.0.0/0", "IPv6": "::/0"}
Rule = tuple[int, str]
"""A TCP port and the network that may reach it."""


def declared_rules(stack: Stack, group: SecurityGroupSpec) -> set[Rule]:
    """Return the rules of a declared group: each port from each source."""
    sources = {source for source in group.sources if source != CALLER}
    sources |= caller.find_networks(stack) if CALLER in group.sources else set()
    return {(port, source) for port in group.ports for source in sources}


def group_candidates(stack: Stack, name: str) -> list[Resource]:
    """Return the project's security groups of a name."""
    with stack.translate_errors("list security groups"):
        listed = list(stack.api("network").security_groups(name=name, project_id=stack.clouds.compute.project_id))
    return [_group(stack, item) for item in listed]


def _group(stack: Stack, item: Any) -> Resource:
    owner = marks.parse_owner(item)
    ours = owner == stack.owner
    adopted = ours and item.description != stack.mark  # then the mark is a tag
    return Resource("security group", item.name, item.id, "", "adopted" if adopted else "", ours, item, owner, adopted)


def our_groups(stack: Stack) -> list[Resource]:
    """Return all security groups that carry our mark, declared or not."""
    with stack.translate_errors("list security groups"):
        listed = list(stack.api("network").security_groups(project_id=stack.clouds.compute.project_id))
    return [item for item in (_group(stack, one) for one in listed) if item.ours]


def _rules(group: Resource) -> dict[Rule, Any]:
    """Return the rules of a group that allow incoming TCP on one port."""
    return {
        (rule["port_range_min"], rule["remote_ip_prefix"] or EVERYWHERE[rule["ethertype"]]): rule
        for rule in group.raw.security_group_rules
        if rule["direction"] == "ingress"
        and rule["protocol"] == "tcp"
        and not rule["remote_group_id"]
        and rule["port_range_min"] == rule["port_range_max"]
    }


def compare_rules(
    stack: Stack, group: SecurityGroupSpec, group_in_cloud: Resource
) -> tuple[set[Rule], dict[Rule, Any]]:
    """Return the rules that a group lacks, and our rules in it that it no longer needs."""
    declared, existing = declared_rules(stack, group), _rules(group_in_cloud)
    stale = {key: rule for key, rule in existing.items() if key not in declared and rule["description"] == stack.mark}
    return declared - set(existing), stale


def find_group(stack: Stack, group: SecurityGroupSpec) -> Resource | None:
    """Return the group of that name. One without our mark that has the needed rules is used, but never changed."""
    candidates = group_candidates(stack, group.name)
    ours = [item for item in candidates if item.ours]
    usable = [item for item in candidates if not item.owner and _allows(item, declared_rules(stack, group))]
    if not ours and len(usable) == 1 and not stack.adopt:
        return usable[0]
    return marks.select_one(candidates, stack.adopt)


def _allows(group: Resource, rules: set[Rule]) -> bool:
    """Return whether a group's rules allow all of `rules`, and maybe more."""
    return all(any(_covers(rule, *one) for rule in group.raw.security_group_rules) for one in rules)


def _covers(rule: Any, port: int, source: str) -> bool:
    if rule["direction"] != "ingress" or rule["remote_group_id"] or rule["protocol"] not in (None, "tcp", "6"):
        return False
    low, high = rule["port_range_min"] or 1, rule["port_range_max"] or 65535
    network = ipaddress.ip_network(source)
    if not low <= port <= high or rule["ethertype"] != f"IPv{network.version}":
        return False
    prefix = rule["remote_ip_prefix"]
    if prefix is None:
        return True
    allowed = answers.validate_network(prefix, "a source in the security group's rules")
    return allowed.version == network.version and network.subnet_of(allowed)  # type: ignore[arg-type]


def create_group(stack: Stack, group: SecurityGroupSpec) -> None:
    """Create a security group, without rules."""
    api = stack.api("network")
    created = create_once(
        stack.clouds.compute,
        f"create the security group {group.name}",
        lambda: _group(stack, api.create_security_group(name=group.name, description=stack.mark)),
        lambda: find_group(stack, group),
        stack.note("security group", group.name),
    )
    withdraw_if_later(
        stack,
        created,
        lambda: [item for item in group_candidates(stack, group.name) if item.ours],
        lambda: delete_group(stack, created),
    )


def update_group(stack: Stack, group: SecurityGroupSpec, existing: Resource) -> None:
    """Add missing rules to a group, and remove ours that it no longer needs."""
    api = stack.api("network")
    missing, stale = compare_rules(stack, group, existing)
    with stack.translate_errors(f"change the security group {group.name}"):
        if not existing.ours:
            api.set_tags(existing.raw, [*(existing.raw.tags or ()), stack.mark])
        for port, source in sorted(missing):
            _add_rule(stack, existing, port, source)
        for rule in stale.values():
            api.delete_security_group_rule(rule["id"])


def _add_rule(stack: Stack, group: Resource, port: int, source: str) -> None:
    try:
        stack.api("network").create_security_group_rule(
            security_group_id=group.id,
            direction="ingress",
            protocol="tcp",
            port_range_min=port,
            port_range_max=port,
            remote_ip_prefix=source,
            description=stack.mark,
            ether_type="IPv6" if ":" in source else "IPv4",
        )
    except sdk.ConflictException as error:
        if "already exists" not in str(error):
            raise


def release_group(stack: Stack, group: Resource) -> None:
    """Remove our rules and our mark from an adopted group, which others may use."""
    api = stack.api("network")
    with stack.translate_errors(f"remove our rules from the security group {group.name}"):
        for rule in group.raw.security_group_rules:
            if rule["description"] == stack.mark:
                api.delete_security_group_rule(rule["id"])
        api.set_tags(group.raw, [tag for tag in group.raw.tags or () if tag != stack.mark])


def delete_group(stack: Stack, group: Resource) -> None:
    """Delete a security group."""
    with stack.translate_errors(f"delete the security group {group.name}"):
        stack.api("network").delete_security_group(group.id)


def find_group_ids(stack: Stack) -> list[str]:
    """Return the ids of the server's security groups. Raises InputError if a name doesn't identify one group."""
    declared = {group.name: group for group in stack.declaration.security_groups}
    server, ids = stack.declaration.server, []
    for name in server.security_groups if server else ():
        existing = find_group(stack, declared[name]) if name in declared else require_one_group(stack, name)
        if existing is None:
            raise _no_such_group(name)
        ids.append(existing.id)
    return ids


def _no_such_group(name: str) -> InputError:
    return InputError(
        f"there is no security group {name!r}", next_step="declare it as [[security_group]], or correct the name"
    )


def require_one_group(stack: Stack, name: str) -> Resource:
    """Return the project's security group of a name. Raises InputError unless there is exactly one."""
    candidates = group_candidates(stack, name)
    if len(candidates) > 1:
        raise InputError(
            join_lines(f"{len(candidates)} security groups have this name:", *(f"  - {item}" for item in candidates)),
            next_step="rename all but one, or declare one of your own",
        )
    if not candidates:
        raise _no_such_group(name)
    return candidates[0]


def _ports(stack: Stack, server: Resource) -> list[Any]:
    """Return the server's network ports with port security."""
    with stack.translate_errors("look for the server's ports"):
        ports = list(stack.api("network").ports(device_id=server.id))
    return [port for port in ports if port.is_port_security_enabled is not False]


def is_in_groups(stack: Stack, server: Resource) -> bool:
    """Return whether the server is in the declared security groups and, if we created it, in no others."""
    return all(
        set(port.security_group_ids) == _declared_group_ids(stack, server, port) for port in _ports(stack, server)
    )


def _declared_group_ids(stack: Stack, server: Resource, port: Any) -> set[str]:
    """Return the ids of the groups for a port. An adopted server keeps its own, too."""
    return set(find_group_ids(stack)) | (set(port.security_group_ids) if server.adopted else set())


def update_server_groups(stack: Stack, server: Resource) -> None:
    """Put the server into the declared security groups and, unless it is adopted, out of others."""
    for port in _ports(stack, server):
        group_ids = _declared_group_ids(stack, server, port)
        if set(port.security_group_ids) != group_ids:
            _set_groups(stack, server, port, group_ids)


def leave_our_groups(stack: Stack, server: Resource) -> None:
    """Remove a server from the groups that this stack created, so that they can be deleted."""
    ours = {group.id for group in our_groups(stack) if not group.adopted}
    for port in _ports(stack, server):
        if ours & set(port.security_group_ids):
            _set_groups(stack, server, port, set(port.security_group_ids) - ours)


def _set_groups(stack: Stack, server: Resource, port: Any, groups: set[str]) -> None:
    stack.report("change", f"security groups of {server}")
    with stack.translate_errors("change the server's security groups"):
        stack.api("network").update_port(port.id, security_group_ids=sorted(groups))
