"""`doctor`: check everything that `up` needs, and report each fault with its remedy. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from larder.errors import ConfigurationError, LarderError
from provision import caller, capacity, leases, networks, objects, plan, quota, servers
from provision.cloud_errors import ServiceMissingError
from provision.clouds import Cloud
from provision.declaration import CALLER
from provision.stack import Stack


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
            yield _check(f"services ({cloud})", lambda cloud=cloud: _services(stack, cloud))  # type: ignore[misc]
            # A missing service is named once, by the line above.
            yield from (check for check in _site(stack, cloud) if not isinstance(check.fault, ServiceMissingError))


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


def _services(stack: Stack, cloud: Cloud) -> str:
    """Describe what a site offers. Raises ServiceMissingError if the declaration needs more."""
    cloud.require(*plan.needed_services(stack, cloud))
    missing = cloud.missing_services()
    return "all" if not missing else f"all but {', '.join(missing)}, which the declaration doesn't need"


def _site(stack: Stack, cloud: Cloud) -> Iterator[PreflightCheck]:
    declared = stack.declaration
    if cloud is stack.clouds.compute and declared.server:
        server = declared.server
        yield _check("image", lambda: str(servers.require_image_fits(stack, server).id))
        yield _check("flavor", lambda: _flavor(servers.find_flavor(stack, server.flavor)))
        yield _check("network", lambda: plan.find_server_network(stack, server))
        yield _check("key pair", lambda: str(servers.find_key_pair(stack, server.key).fingerprint))
        yield _check("private key", lambda: plan.find_private_key(server))
        for name in plan.undeclared_groups(stack):
            yield _check(f"security group {name}", lambda name=name: _group(stack, name))  # type: ignore[misc]
    if cloud is stack.clouds.compute and declared.floating_ip:
        pool = declared.floating_ip.network
        yield _check("network of floating IPs", lambda: str(servers.find_network(stack, pool).id))
    if cloud is stack.clouds.compute and any(CALLER in group.sources for group in declared.security_groups):
        yield _check("who may connect", lambda: ", ".join(sorted(caller.find_networks(stack))))
    if cloud is stack.clouds.compute and (
        declared.server or declared.volumes or declared.shares or declared.security_groups
    ):
        yield _check("quota", lambda: quota.check_quota(stack))
    if cloud is stack.clouds.compute and declared.lease:
        yield _check("lease", lambda: _lease(stack))
    if cloud is stack.clouds.objects and declared.bucket:
        yield _check("bucket", lambda: _bucket(stack))
    if cloud is stack.clouds.objects and declared.credentials:
        yield _check("keys for S3", lambda: _require_unrestricted(cloud, "S3 keys"))


def _flavor(flavor: Any) -> str:
    return f"{flavor.vcpus} cores, {flavor.ram} MB, {flavor.disk} GB"


def _group(stack: Stack, name: str) -> str:
    return networks.require_one_group(stack, name).id


def _lease(stack: Stack) -> str:
    """Describe the current lease, or the capacity for one, as far as the site tells."""
    lease = leases.current(stack)
    if lease is not None:
        return lease.resource.detail
    _require_unrestricted(stack.clouds.compute, "leases")
    assert stack.declaration.lease
    leases.check_start(stack.declaration.lease)
    seen = capacity.describe(stack)
    if fault := seen.fault:
        raise fault
    return f"none yet; {seen.text}"


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
