"""Shares: file systems of the site's NFS servers (OpenStack's Manila), which outlive the server.

A share is mounted by those whose addresses its access rules have. The stack's server gets a rule of its own, with our
mark in its metadata; it is removed with the server. Where a rule of someone else covers the server already, as at sites
that grant access themselves, ours isn't needed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openstack import exceptions as sdk

from larder.errors import ConfigurationError, InputError, ServiceError
from provision import addresses, answers, marks, servers
from provision.cloud_errors import RUN_AGAIN, status_of
from provision.clouds import WaitTimeoutError, create_once, poll_until
from provision.concurrency import withdraw_if_later
from provision.declaration import ShareSpec
from provision.host.share import parse_export
from provision.host_scripts import Export
from provision.marks import Resource
from provision.stack import Stack

MICROVERSION = "2.45"
"""Manila's first version with metadata in access rules, which hold our mark: of 2018."""
PROTOCOL = "NFS"
ACCESS_STATES = ("active", "applying", "queued_to_apply")
"""States of a rule that gives access, or soon does."""


def _api(stack: Stack) -> Any:
    api = stack.api("shared-file-system")
    api.default_microversion = MICROVERSION
    return api


def as_resource(stack: Stack, share: Any) -> Resource:
    """Return the site's share as a resource."""
    metadata = share.metadata or {}
    owner, adopted = metadata.get(marks.STACK, ""), metadata.get(marks.ADOPTED) == "yes"
    return Resource(
        "share",
        share.name or "",
        share.id,
        share.status,
        f"{share.size} GiB {share.share_protocol}{', adopted' if adopted else ''}",
        owner == stack.owner,
        share,
        owner,
        adopted,
    )


def all_shares(stack: Stack) -> list[Resource]:
    """Return the project's shares, without public ones of other projects."""
    project = stack.clouds.compute.project_id
    with stack.translate_errors("list shares"):
        return [as_resource(stack, item) for item in _api(stack).shares() if item.project_id == project]


def list_ours(stack: Stack) -> list[Resource]:
    """Return all shares that carry our mark, declared or not."""
    return [item for item in all_shares(stack) if item.ours]


def find(stack: Stack, name: str) -> Resource | None:
    """Return the declared share of that name, or None."""
    return marks.select_declared(all_shares(stack), name, name, stack.adopt)


def require_share(stack: Stack, name: str) -> Resource:
    """Return a declared share. Raises InputError if it doesn't exist or isn't ours."""
    return marks.require_ours(find(stack, name), "share", name)


def _types(stack: Stack) -> list[Any]:
    with stack.translate_errors("list the types of shares"):
        return list(_api(stack).share_types())


def require_type(stack: Stack, name: str) -> None:
    """Raise InputError unless the site has a share type."""
    types = _types(stack)
    if not any(name in (item.name, item.id) for item in types):
        raise servers.not_found_error(
            "share type", name, [str(item.name) for item in types], "correct type in [[share]], or leave it out"
        )


def require_nfs(share: Resource) -> None:
    """Raise InputError unless a share is served over NFS."""
    if share.raw.share_protocol != PROTOCOL:
        raise InputError(
            f"{share} has the protocol {share.raw.share_protocol}: only {PROTOCOL} is supported",
            next_step="declare another name, for a new share",
        )


def read_limits(stack: Stack) -> dict[str, int]:
    """Return the project's quota of shares, and its use. openstacksdk doesn't find them in the answer."""
    with stack.translate_errors("read the quota of shares"):
        answer = _api(stack).get("/limits")
        sdk.raise_from_response(answer)
        limits: dict[str, int] = answer.json()["limits"]["absolute"]
    return limits


def create(stack: Stack, spec: ShareSpec) -> Resource:
    """Create a share, and wait until it can be mounted."""
    body: dict[str, Any] = {"name": spec.name, "size": spec.gib, "share_protocol": PROTOCOL}
    types = [] if spec.type else _types(stack)
    if kind := spec.type or (types[0].id if len(types) == 1 else None):  # a site with one type may have no default
        body["share_type"] = kind
    metadata = {**stack.metadata, marks.PART: spec.name}
    created = create_once(
        stack.clouds.compute,
        f"create the share {spec.name}",
        lambda: as_resource(stack, _api(stack).create_share(**body, metadata=metadata)),
        lambda: find(stack, spec.name),
        stack.note("share", spec.name),
    )
    withdraw_if_later(
        stack,
        created,
        lambda: [item for item in list_ours(stack) if marks.declared_name(item) == spec.name],
        lambda: delete(stack, wait_available(stack, created)),
    )
    return wait_available(stack, created)


def read(stack: Stack, share: Resource) -> Resource:
    """Query a share again."""
    with stack.translate_errors("read the share"):
        return as_resource(stack, _api(stack).get_share(share.id))


def wait_available(stack: Stack, share: Resource, gib: int = 0) -> Resource:
    """Wait until a share is available, with that size at least. Raises ServiceError if it fails or takes too long."""

    def check() -> Resource | None:
        now = read(stack, share)
        if "error" in now.status:
            raise error_of(stack, now)
        return now if now.status == "available" and now.raw.size >= gib else None

    try:
        what = f"{share} is available"
        return poll_until(stack.reporter, what, check, stack.declaration.limits.share, RUN_AGAIN)
    except WaitTimeoutError as error:
        raise WaitTimeoutError(f"{error.what}: it is {read(stack, share).status}", next_step=error.next_step) from None


def error_of(stack: Stack, share: Resource) -> ServiceError:
    """Return the error for a share in an error state, with Manila's message."""
    reason = message(stack, share.id)
    return ServiceError(
        f"{share} is in {share.status}{f': {reason}' if reason else ''}",
        next_step=f"if it never held data, `share delete {marks.declared_name(share) or share.name}`, then run this "
        "again; if its data count, ask the site to reset its state",
    )


def message(stack: Stack, id: str) -> str:
    """Return Manila's latest message about a share or an access rule, or ""."""
    try:
        found = list(_api(stack).user_messages(resource_id=id, sort_key="created_at", sort_dir="desc"))
    except sdk.SDKException:
        return ""
    return str(found[0].user_message or "") if found else ""


def adopt(stack: Stack, share: Resource, name: str) -> None:
    """Mark a share as ours."""
    require_nfs(share)
    marked = {**stack.metadata, marks.PART: name, marks.ADOPTED: "yes"}
    with stack.translate_errors("mark the share"):
        _api(stack).set_share_metadata(share.id, **marked)


def grow(stack: Stack, share: Resource, gib: int) -> Resource:
    """Grow a share to a size, unless it already has that size. Clients see the new size at once."""
    now = read(stack, share)
    if gib < now.raw.size:
        raise InputError(
            f"{now} has {now.raw.size} GiB: shares aren't shrunk to {gib}",
            next_step="declare the size that it has, or more",
        )
    if gib == now.raw.size:
        return now
    now = wait_available(stack, now)
    create_once(
        stack.clouds.compute,
        f"grow {now}",
        lambda: _post_action(stack, now.id, {"extend": {"new_size": gib}}),
        lambda: now if read(stack, now).status == "extending" or read(stack, now).raw.size == gib else None,
    )
    return wait_available(stack, now, gib)


def _post_action(stack: Stack, id: str, body: dict[str, Any]) -> Any:
    answer = _api(stack).post(f"/shares/{id}/action", json=body)
    sdk.raise_from_response(answer)
    return answer


def delete(stack: Stack, share: Resource) -> None:
    """Delete a share with its data, and wait until it is gone. The server must have no access any more."""
    if share.status != "deleting":  # by an interrupted run; it may be gone at any moment
        if granted := [rule for rule in access_rules(stack, share) if rule.ours]:
            raise InputError(
                f"{share} may be mounted by {', '.join(rule.raw['access_to'] for rule in granted)}",
                next_step="`share unmount` first",
            )
        with stack.translate_errors(f"delete {share}"):
            _api(stack).delete_share(share.id)

    def gone() -> bool | None:
        existing = next((item for item in all_shares(stack) if item.id == share.id), None)
        if existing and existing.status == "error_deleting":
            raise error_of(stack, existing)
        return None if existing else True

    poll_until(stack.reporter, f"{share} is gone", gone, stack.declaration.limits.share, RUN_AGAIN)


# --- where it is mounted from -----------------------------------------------------------------------------------------


def export_of(stack: Stack, share: Resource) -> str:
    """Return the address of a share, HOST:PATH: the one that the site prefers, if there are several."""
    require_nfs(share)
    with stack.translate_errors(f"look for the export of {share}"):
        listed = [item for item in _api(stack).export_locations(share.id) if not item.is_admin]
    paths = sorted((not item.is_preferred, item.path) for item in listed)
    if not paths:
        raise ServiceError(f"{share} has no export yet", next_step=f"wait a minute, then {RUN_AGAIN}")
    return answers.validate_export(paths[0][1], f"the export of {share}")


def export(stack: Stack, share: Resource, spec: ShareSpec) -> Export:
    """Return the share as the server's scripts mount it."""
    return Export(share.id, export_of(stack, share), spec.mount or "", is_new=not share.adopted)


# --- who may mount it -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AccessDifference:
    """What the access rules of a share lack for the server, and which of ours don't serve it."""

    missing: tuple[str, ...]
    """Addresses of the server."""
    stale: tuple[Resource, ...]
    """Rules of ours for other addresses, or in error."""


def access_rules(stack: Stack, share: Resource) -> list[Resource]:
    """Return the access rules of a share, whoever made them."""
    with stack.translate_errors(f"list the access rules of {share}"):
        answer = _api(stack).get("/share-access-rules", params={"share_id": share.id})
        sdk.raise_from_response(answer)
        return [_rule(stack, share, item) for item in answer.json()["access_list"]]


def _rule(stack: Stack, share: Resource, item: dict[str, Any]) -> Resource:
    owner = (item.get("metadata") or {}).get(marks.STACK, "")
    name = f"{share.name} for {item['access_to']}"
    detail = f"{item['access_level']} {item['access_type']}"
    raw = {**item, "share": share}
    return Resource("access", name, item["id"], item["state"], detail, owner == stack.owner, raw, owner)


def list_access(stack: Stack) -> list[Resource]:
    """Return our access rules, of all our shares."""
    return [rule for share in list_ours(stack) if share.status != "deleting" for rule in _ours_of(stack, share)]


def _ours_of(stack: Stack, share: Resource) -> list[Resource]:
    return [rule for rule in access_rules(stack, share) if rule.ours]


def server_addresses(stack: Stack, server: Resource, export: str) -> list[str]:
    """Return the addresses under which an NFS server may see our server: its own ones and its floating IP.

    Which one it is depends on the site's routes. Only those of the export's IP version count.
    """
    with stack.translate_errors("look for the server's addresses"):
        ports = list(stack.api("network").ports(device_id=server.id))
    found = [item["ip_address"] for port in ports for item in port.fixed_ips]
    floating = addresses.find(stack)
    if floating is not None and floating.raw.port_id in {port.id for port in ports}:
        found.append(floating.name)
    parsed = parse_export(export)
    version = 6 if parsed and ":" in parsed[0] else 4
    valid = [answers.validate_address(item, f"an address of {server}") for item in found]
    return [item for item in valid if ipaddress.ip_address(item).version == version]


def _covers(rule: Resource, address: str) -> bool:
    """Return whether a rule lets an address write."""
    raw = rule.raw
    if raw["access_type"] != "ip" or raw["access_level"] != "rw" or rule.status not in ACCESS_STATES:
        return False
    network = answers.validate_network(raw["access_to"], f"the address in {rule}")
    return ipaddress.ip_address(address) in network


def compare_access(stack: Stack, share: Resource, server: Resource) -> AccessDifference:
    """Return what the share's access rules lack for the server, and which of ours don't serve it."""
    wanted = server_addresses(stack, server, export_of(stack, share))
    rules = access_rules(stack, share)
    ours = [rule for rule in rules if rule.ours]
    stale = [rule for rule in ours if not any(_covers(rule, address) for address in wanted)]
    granted = any(_covers(rule, address) for rule in rules if not rule.ours for address in wanted)
    missing = [] if granted else [item for item in wanted if not any(_covers(rule, item) for rule in ours)]
    return AccessDifference(tuple(missing), tuple(stale))


def update_access(stack: Stack, share: Resource, server: Resource) -> None:
    """Give the server access to the share, and remove rules of ours that don't serve it."""
    difference = compare_access(stack, share, server)
    for rule in difference.stale:
        revoke(stack, rule)
    try:
        for address in difference.missing:
            _grant(stack, share, address)
    except _AccessForbiddenError as error:
        _wait_for_the_site(stack, share, server, error)
    _wait_for_access(stack, share)


class _AccessForbiddenError(ConfigurationError):
    """The site lets only its operators change access rules."""


def _wait_for_the_site(stack: Stack, share: Resource, server: Resource, forbidden: _AccessForbiddenError) -> None:
    """Wait until the site itself grants the server access. Raises ConfigurationError if it doesn't."""
    stack.report("note", f"this site grants access to {share} itself: waiting for that")

    def check() -> bool | None:
        return None if compare_access(stack, share, server).missing else True

    try:
        poll_until(stack.reporter, f"the server may use {share}", check, stack.declaration.limits.share, RUN_AGAIN)
    except WaitTimeoutError as error:
        raise ConfigurationError(f"{error.what}; {forbidden.what}", next_step=forbidden.next_step) from error


def _grant(stack: Stack, share: Resource, address: str) -> None:
    stack.report("create", f"access to {share} for {address}")
    rule = {"access_type": "ip", "access_to": address, "access_level": "rw", "metadata": stack.metadata}

    def find_rule() -> bool | None:
        return True if any(_covers(item, address) for item in access_rules(stack, share)) else None

    try:
        create_once(
            stack.clouds.compute,
            f"give {address} access to {share}",
            lambda: bool(_post_action(stack, share.id, {"allow_access": rule})),
            find_rule,
        )
    except ConfigurationError as error:
        if error.__cause__ is None or status_of(error.__cause__) != 403:  # type: ignore[arg-type]
            raise
        raise _AccessForbiddenError(
            error.what,
            next_step='at Chameleon, put the server on a storage network: [network] usage_type = "storage"; elsewhere '
            "ask the site how servers get access",
        ) from error


def _wait_for_access(stack: Stack, share: Resource) -> None:
    """Wait until our rules of the share are active. Raises ServiceError with Manila's message if one fails."""

    def check() -> bool | None:
        rules = _ours_of(stack, share)
        failed = next((rule for rule in rules if rule.status == "error"), None)
        if failed:
            reason = message(stack, failed.id) or message(stack, share.id) or "no reason is given"
            raise ServiceError(f"{failed} is in error: {reason}", next_step=RUN_AGAIN)
        return True if all(rule.status == "active" for rule in rules) else None

    what = f"the access rules of {share} are active"
    poll_until(stack.reporter, what, check, stack.declaration.limits.share, RUN_AGAIN)


def revoke(stack: Stack, rule: Resource) -> None:
    """Remove an access rule of ours, and wait until it is gone."""
    share = rule.raw["share"]
    if rule.status not in ("queued_to_deny", "denying"):  # by an interrupted run
        stack.report("delete", f"{rule}")
        with stack.translate_errors(f"remove {rule}"):
            try:
                _post_action(stack, share.id, {"deny_access": {"access_id": rule.id}})
            except sdk.NotFoundException:  # another run was faster
                return

    def gone() -> bool | None:
        left = next((item for item in access_rules(stack, share) if item.id == rule.id), None)
        if left and left.status == "error":
            reason = message(stack, left.id) or message(stack, share.id) or "no reason is given"
            raise ServiceError(f"{left} can't be removed: {reason}", next_step=RUN_AGAIN)
        return None if left else True

    poll_until(stack.reporter, f"{rule} is gone", gone, stack.declaration.limits.share, RUN_AGAIN)


def revoke_all(stack: Stack, rules: Sequence[Resource]) -> None:
    """Remove these access rules."""
    for rule in rules:
        revoke(stack, rule)
