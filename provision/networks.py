"""Security groups, floating addresses, and the address that we come from."""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from http.client import HTTPException
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from openstack import exceptions as sdk

from larder.errors import ConfigurationError, InputError
from larder.terminal import lines
from provision import answers, marks
from provision.clouds import make
from provision.declaration import CALLER, SecurityGroup
from provision.declaration import network as as_network
from provision.marks import Thing
from provision.servers import network
from provision.stack import Stack

CALLER_SECONDS = 10
CALLER_BYTES = 100
NAME_CALLER = "give it as --caller 192.0.2.7 or LARDER_CALLER, or write sources into [[security_group]]"
EVERYWHERE = {"IPv4": "0.0.0.0/0", "IPv6": "::/0"}
Rule = tuple[int, str]
"""A TCP port and the network that may reach it."""


def caller(stack: Stack) -> str:
    """The network that stands for this machine in security groups.

    What the user names (--caller, LARDER_CALLER) counts. Else it is our own address on the way to the cloud, if that is
    public or the cloud is in a private network, too; behind a router, `caller_service` is asked. Where the cloud has
    both, it is the one of IPv4: so are floating IPs, which nothing reaches from an address of IPv6.
    """
    if stack.caller:
        return stack.caller
    address = urlsplit(stack.clouds.compute.connection.config.get_auth_args()["auth_url"])
    port = address.port or 443
    try:
        ways = socket.getaddrinfo(address.hostname, port, type=socket.SOCK_DGRAM)
        family, _, _, _, target = min(ways, key=lambda way: way[0] != socket.AF_INET)
        with socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect(target)  # of UDP: it chooses the way, and sends nothing
            own = ipaddress.ip_address(way.getsockname()[0])
        if own.is_global or ipaddress.ip_address(target[0]).is_private:
            return str(ipaddress.ip_network(own))
        return as_network(_asked(stack.declaration.caller_service))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the address that the cloud sees this machine come from can't be found: {error}", next_step=NAME_CALLER
        ) from error


def _asked(service: str) -> str:
    """The public address that a web service sees this machine come from. It may answer anything, and take any time."""
    found: list[bytes | Exception] = []

    def ask() -> None:
        try:
            with urllib.request.build_opener(_NoRedirect()).open(service, timeout=CALLER_SECONDS) as answer:
                found.append(answer.read(CALLER_BYTES + 1))
        except (OSError, ValueError, HTTPException) as error:
            found.append(error)

    # A thread, since a socket's time limit restarts with each byte.
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CALLER_SECONDS)
    if not found:
        raise TimeoutError(f"{service} didn't answer within {CALLER_SECONDS} s")
    if isinstance(found[0], Exception):
        raise OSError(f"{service}: {found[0]}")
    if len(found[0]) > CALLER_BYTES:
        raise ValueError(f"{service} answers with more than an address")
    text = found[0].decode("ascii", errors="replace").strip()
    return answers.public_address(text, f"the question who asks, put to {service},", NAME_CALLER)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Who was asked answers, or nobody."""

    def redirect_request(self, *words: Any, **options: Any) -> None:
        return None


def wanted_rules(stack: Stack, group: SecurityGroup) -> set[Rule]:
    sources = {caller(stack) if source == CALLER else source for source in group.sources}
    return {(port, source) for port in group.ports for source in sources}


def group_candidates(stack: Stack, name: str) -> list[Thing]:
    with stack.step("list security groups"):
        found = list(stack.clouds.compute.connection.network.security_groups(
            name=name, project_id=stack.clouds.compute.project_id))  # fmt: skip
    return [_group(stack, item) for item in found]


def _group(stack: Stack, item: Any) -> Thing:
    owner = marks.on_text(item)
    ours = owner == stack.owner
    adopted = ours and item.description != stack.mark  # then a tag says so
    return Thing("security group", item.name, item.id, "", "adopted" if adopted else "", ours, item, owner, adopted)


def our_groups(stack: Stack) -> list[Thing]:
    """All security groups that carry our mark, declared or not."""
    with stack.step("list security groups"):
        found = list(
            stack.clouds.compute.connection.network.security_groups(project_id=stack.clouds.compute.project_id)
        )
    return [item for item in (_group(stack, one) for one in found) if item.ours]


def _rules(group: Thing) -> dict[Rule, Any]:
    """The rules of a group that let TCP in on one port."""
    return {
        (rule["port_range_min"], rule["remote_ip_prefix"] or EVERYWHERE[rule["ethertype"]]): rule
        for rule in group.raw.security_group_rules
        if rule["direction"] == "ingress" and rule["protocol"] == "tcp" and not rule["remote_group_id"]
        and rule["port_range_min"] == rule["port_range_max"]
    }  # fmt: skip


def lacking(stack: Stack, group: SecurityGroup, found: Thing) -> tuple[set[Rule], dict[Rule, Any]]:
    """The rules that a group needs yet, and those of ours in it that it doesn't need any more."""
    wanted, there = wanted_rules(stack, group), _rules(found)
    stale = {key: rule for key, rule in there.items() if key not in wanted and rule["description"] == stack.mark}
    return wanted - set(there), stale


def find_group(stack: Stack, group: SecurityGroup) -> Thing | None:
    """The group of that name. One without our mark that lets in what it should is used as it is, and never changed."""
    candidates = group_candidates(stack, group.name)
    ours = [item for item in candidates if item.ours]
    fit = [item for item in candidates if not item.owner and _lets_in(item, wanted_rules(stack, group))]
    if not ours and len(fit) == 1 and not stack.adopt:
        return fit[0]
    return marks.one(candidates, stack.adopt)


def _lets_in(group: Thing, wanted: set[Rule]) -> bool:
    """Whether a group's rules, which may be wider, let in all that is wanted."""
    return all(any(_covers(rule, *one) for rule in group.raw.security_group_rules) for one in wanted)


def _covers(rule: Any, port: int, source: str) -> bool:
    if rule["direction"] != "ingress" or rule["remote_group_id"] or rule["protocol"] not in (None, "tcp", "6"):
        return False
    low, high = rule["port_range_min"] or 1, rule["port_range_max"] or 65535
    wanted = ipaddress.ip_network(source)
    if not low <= port <= high or rule["ethertype"] != f"IPv{wanted.version}":
        return False
    prefix = rule["remote_ip_prefix"]
    if prefix is None:
        return True
    wide = answers.network(prefix, "a source in the security group's rules")
    return wide.version == wanted.version and wanted.subnet_of(wide)  # type: ignore[arg-type]


def create_group(stack: Stack, group: SecurityGroup) -> None:
    api = stack.clouds.compute.connection.network
    make(
        stack.clouds.compute, f"make the security group {group.name}",
        lambda: api.create_security_group(name=group.name, description=stack.mark), lambda: find_group(stack, group),
    )  # fmt: skip


def bring_group_up(stack: Stack, group: SecurityGroup, found: Thing) -> None:
    """Give a group the rules that it lacks, and take ours from it that it doesn't need any more."""
    api = stack.clouds.compute.connection.network
    missing, stale = lacking(stack, group, found)
    with stack.step(f"change the security group {group.name}"):
        if not found.ours:
            api.set_tags(found.raw, [*(found.raw.tags or ()), stack.mark])
        for port, source in sorted(missing):
            _add_rule(stack, found, port, source)
        for rule in stale.values():
            api.delete_security_group_rule(rule["id"])


def _add_rule(stack: Stack, group: Thing, port: int, source: str) -> None:
    try:
        stack.clouds.compute.connection.network.create_security_group_rule(
            security_group_id=group.id, direction="ingress", protocol="tcp", port_range_min=port, port_range_max=port,
            remote_ip_prefix=source, description=stack.mark,
            ether_type="IPv6" if ":" in source else "IPv4",
        )  # fmt: skip
    except sdk.ConflictException as error:
        if "already exists" not in str(error):
            raise


def release_group(stack: Stack, group: Thing) -> None:
    """Take from an adopted group the rules that we gave it, and our mark: others may use it."""
    api = stack.clouds.compute.connection.network
    with stack.step(f"take our rules from the security group {group.name}"):
        for rule in group.raw.security_group_rules:
            if rule["description"] == stack.mark:
                api.delete_security_group_rule(rule["id"])
        api.set_tags(group.raw, [tag for tag in group.raw.tags or () if tag != stack.mark])


def delete_group(stack: Stack, group: Thing) -> None:
    with stack.step(f"delete the security group {group.name}"):
        stack.clouds.compute.connection.network.delete_security_group(group.id)


def ids_of_groups(stack: Stack) -> list[str]:
    """The ids of the security groups that the server is to be in. InputError where a name isn't one group's."""
    declared = {group.name: group for group in stack.declaration.security_groups}
    server, ids = stack.declaration.server, []
    for name in server.security_groups if server else ():
        found = find_group(stack, declared[name]) if name in declared else _only(group_candidates(stack, name))
        if found is None:
            raise InputError(f"there is no security group {name!r}", next_step="declare it, or correct [server]")
        ids.append(found.id)
    return ids


def _only(candidates: list[Thing]) -> Thing | None:
    if len(candidates) > 1:
        raise InputError(
            lines(f"{len(candidates)} security groups have this name:", *(f"  - {item}" for item in candidates)),
            next_step="rename all but one, or declare one of your own",
        )
    return candidates[0] if candidates else None


def _ports(stack: Stack, server: Thing) -> list[Any]:
    """The server's ports that security groups apply to."""
    with stack.step("look for the server's ports"):
        ports = list(stack.clouds.compute.connection.network.ports(device_id=server.id))
    return [port for port in ports if port.is_port_security_enabled is not False]


def is_in_groups(stack: Stack, server: Thing) -> bool:
    """Whether the server is in the declared security groups, and, if we made it, in no others."""
    return all(set(port.security_group_ids) == _wanted_of(stack, server, port) for port in _ports(stack, server))


def _wanted_of(stack: Stack, server: Thing, port: Any) -> set[str]:
    """The ids of the groups that a port is to be in; what an adopted server had, it keeps."""
    return set(ids_of_groups(stack)) | (set(port.security_group_ids) if server.adopted else set())


def bring_server_up(stack: Stack, server: Thing) -> None:
    """Put the server into the declared security groups, and out of others, unless somebody else made it."""
    for port in _ports(stack, server):
        wanted = _wanted_of(stack, server, port)
        if set(port.security_group_ids) != wanted:
            _put_into(stack, server, port, wanted)


def leave_our_groups(stack: Stack, server: Thing) -> None:
    """Take a server out of the groups that this stack made, so that they can go."""
    ours = {group.id for group in our_groups(stack) if not group.adopted}
    for port in _ports(stack, server):
        if ours & set(port.security_group_ids):
            _put_into(stack, server, port, set(port.security_group_ids) - ours)


def _put_into(stack: Stack, server: Thing, port: Any, groups: set[str]) -> None:
    stack.say("change", f"security groups of {server}")
    with stack.step("change the server's security groups"):
        stack.clouds.compute.connection.network.update_port(port.id, security_group_ids=sorted(groups))


def _address(stack: Stack, item: Any) -> Thing:
    place = f"at port {item.port_id}" if item.port_id else "unused"
    owner = marks.on_text(item)
    return Thing(
        "floating IP", item.floating_ip_address, item.id, item.status, place, owner == stack.owner, item, owner
    )


def our_addresses(stack: Stack) -> list[Thing]:
    with stack.step("list floating IPs"):
        found = list(stack.clouds.compute.connection.network.ips(project_id=stack.clouds.compute.project_id))
    return [item for item in (_address(stack, ip) for ip in found) if item.ours]


def find_address(stack: Stack) -> Thing | None:
    return marks.one(our_addresses(stack), stack.adopt)


def port_of(stack: Stack, server: Thing) -> str:
    """The id of a server's network port."""
    with stack.step("look for the server's port"):
        ports = list(stack.clouds.compute.connection.network.ports(device_id=server.id))
    if not ports:
        raise InputError(f"{server} has no network port", next_step="`up --replace` starts another one")
    return str(ports[0].id)


def bring_address_up(stack: Stack, found: Thing | None, server: Thing) -> Thing:
    """A floating IP of ours at the server's port."""
    assert stack.declaration.floating_ip
    api, port = stack.clouds.compute.connection.network, port_of(stack, server)
    with stack.step("give the server a floating IP"):
        if found is not None:
            return found if found.raw.port_id == port else _address(stack, api.update_ip(found.id, port_id=port))
        pool = network(stack, stack.declaration.floating_ip.network)
        return make(
            stack.clouds.compute, "get a floating IP",
            lambda: _address(stack, api.create_ip(floating_network_id=pool.id, port_id=port, description=stack.mark)),
            lambda: find_address(stack),
        )  # fmt: skip


def delete_address(stack: Stack, address: Thing) -> None:
    with stack.step(f"give back the floating IP {address.name}"):
        stack.clouds.compute.connection.network.delete_ip(address.id)
