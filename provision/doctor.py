"""`doctor`: looks at everything that `up` needs, and names the remedy of each fault. Makes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from larder.errors import ConfigurationError, InputError, LarderError
from provision import leases, networks, objects, plan, servers, volumes
from provision.clouds import Cloud
from provision.stack import Stack


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis."""

    name: str
    found: str
    fault: LarderError | None = None


def examine(stack: Stack) -> Iterator[Check]:
    """Every check, each whatever the others say; those of a site end where nobody can log in."""
    for cloud in stack.clouds.both:
        login = _check(f"log in ({cloud})", lambda cloud=cloud: _login(cloud))  # type: ignore[misc]
        yield login
        if login.fault is None:
            yield _check(f"region ({cloud})", lambda cloud=cloud: _region(cloud))  # type: ignore[misc]
            yield from _site(stack, cloud)


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, look())
    except LarderError as error:
        return Check(name, "", error)


def _login(cloud: Cloud) -> str:
    access = cloud.access
    return f"{access.username} in project {access.project_name} ({cloud.project_id}), by {cloud.credential_kind}"


def _region(cloud: Cloud) -> str:
    cloud.check_region()
    return cloud.region or "any"


def _site(stack: Stack, cloud: Cloud) -> Iterator[Check]:
    wanted = stack.declaration
    if cloud is stack.clouds.compute and wanted.server:
        server = wanted.server
        yield _check("image", lambda: str(servers.image(stack, server.image).id))
        yield _check("flavor", lambda: _flavor(servers.flavor(stack, server.flavor)))
        yield _check("network", lambda: str(servers.network(stack, server.network).id))
        yield _check("key pair", lambda: str(servers.key_pair(stack, server.key).fingerprint))
        yield _check("private key", lambda: _private_key(stack))
        for name in plan.undeclared_groups(stack):
            yield _check(f"security group {name}", lambda name=name: _group(stack, name))  # type: ignore[misc]
    if cloud is stack.clouds.compute and wanted.floating_ip:
        pool = wanted.floating_ip.network
        yield _check("network of floating IPs", lambda: str(servers.network(stack, pool).id))
    if cloud is stack.clouds.compute and wanted.security_groups:
        yield _check("our address", lambda: networks.caller(stack))
    if cloud is stack.clouds.compute and (wanted.server or wanted.volumes):
        yield _check("quota", lambda: _quota(stack))
    if cloud is stack.clouds.compute and wanted.lease:
        yield _check("lease", lambda: _lease(stack))
    if cloud is stack.clouds.objects and wanted.bucket:
        yield _check("bucket", lambda: _bucket(stack))
    if cloud is stack.clouds.objects and wanted.credentials:
        yield _check("keys for S3", lambda: _unrestricted(cloud, "S3 keys"))


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
    found = networks.group_candidates(stack, name)
    if not found:
        raise servers.missing("security group", name, [], "declare it as [[security_group]], or correct the name")
    return found[0].id


def _quota(stack: Stack) -> str:
    """What is left; InputError where the declaration needs more."""
    connection = stack.clouds.compute.connection
    with stack.step("read the quota"):
        compute = connection.compute.get_limits().absolute
        storage = connection.block_storage.get_limits().absolute
    gib_left = storage.max_total_volume_gigabytes - storage.total_gigabytes_used
    new = [item for item in stack.declaration.volumes if volumes.find(stack, item.name) is None]
    needs = [("volumes", len(new), storage.max_total_volumes - storage.total_volumes_used),
             ("GiB of volumes", sum(item.gib for item in new), gib_left)]  # fmt: skip
    if stack.declaration.server and servers.find(stack) is None:
        flavor = servers.flavor(stack, stack.declaration.server.flavor)
        needs += [("servers", 1, compute.instances - compute.instances_used),
                  ("cores", flavor.vcpus, compute.total_cores - compute.total_cores_used),
                  ("MB of memory", flavor.ram, compute.total_ram - compute.total_ram_used)]  # fmt: skip
    # A limit of -1 is none.
    short = [f"{what}: {need} needed, {max(left, 0)} left" for what, need, left in needs if need > left >= 0]
    if short:
        raise InputError(f"the project's quota is too small: {'; '.join(short)}",
                         next_step="free something, declare less, or ask the site for more")  # fmt: skip
    return ", ".join(f"{left} {what} left" for what, _, left in needs)


def _lease(stack: Stack) -> str:
    """That leases can be made at all. Whether there is room shows only when one is asked for."""
    found = leases.find(stack)
    if found is None:
        _unrestricted(stack.clouds.compute, "leases")
    return found.thing.detail if found else "none yet; whether there is room shows when `up` asks for it"


def _unrestricted(cloud: Cloud, what: str) -> str:
    if cloud.restricted:
        raise ConfigurationError(f"the application credential is restricted: it can't make {what}",
                                 next_step="make an unrestricted one, or use the password")  # fmt: skip
    return "allowed"


def _bucket(stack: Stack) -> str:
    found = objects.find(stack)
    return found.detail if found else "none yet"
