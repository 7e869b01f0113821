"""List the resources of a stack, declared or not: everything that carries its mark."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from larder.errors import LarderError
from larder.terminal import Lines, escape, join_lines
from provision import addresses, credentials, lease_network, leases, networks, objects, servers, shares, volumes
from provision.cloud_errors import ServiceMissingError
from provision.leases import Lease
from provision.marks import Resource
from provision.stack import Stack

T = TypeVar("T")


@dataclass(frozen=True)
class Status:
    """All resources that carry the stack's mark, with warnings."""

    leases: tuple[Lease, ...]
    servers: tuple[Resource, ...]
    addresses: tuple[Resource, ...]
    groups: tuple[Resource, ...]
    volumes: tuple[Resource, ...]
    buckets: tuple[Resource, ...]
    keys: tuple[Resource, ...]
    unseen: tuple[str, ...] = ()
    """What could not be queried, and why; if not empty, more resources may exist."""
    routers: tuple[Resource, ...] = ()
    used_leases: tuple[Lease, ...] = ()
    """Leases that the declaration names, which aren't this stack's."""
    shares: tuple[Resource, ...] = ()
    access: tuple[Resource, ...] = ()
    """Access rules of shares."""
    not_offered: tuple[str, ...] = ()
    """What the sites don't offer, so that there can't be any: a line per site."""

    @property
    def resources(self) -> list[Resource]:
        """All resources."""
        return [
            *(lease.resource for lease in (*self.leases, *self.used_leases)),
            *self.servers,
            *self.addresses,
            *self.routers,
            *self.groups,
            *self.volumes,
            *self.shares,
            *self.access,
            *self.buckets,
            *self.keys,
        ]

    @property
    def warnings(self) -> list[str]:
        """What needs attention: leases that end soon, servers and shares in an error state."""
        warnings = [leases.expiry_warning(lease) for lease in (*self.leases, *self.used_leases)]
        warnings += [f"{server} is in ERROR: `up` says why" for server in self.servers if server.status == "ERROR"]
        warnings += [f"{share} is in {share.status}: `up` says why" for share in self.shares if "error" in share.status]
        return [text for text in warnings if text]

    def json(self) -> dict[str, Any]:
        """Return the status as JSON, without credentials."""
        rows = [asdict(replace(resource, raw=None)) for resource in self.resources]
        return {
            "things": [{key: value for key, value in row.items() if key != "raw"} for row in rows],
            "warnings": self.warnings,
            "unseen": list(self.unseen),
            "not_offered": list(self.not_offered),
        }


def read_status(stack: Stack) -> Status:
    """Query both sites. Failures go to `unseen`; if everything that the sites offer fails, raise the first error."""
    faults: list[tuple[str, LarderError]] = []
    queried: list[str] = []

    def collect(what: str, query: Callable[[Stack], Iterable[T]]) -> tuple[T, ...]:
        try:
            found = tuple(query(stack))
        except ServiceMissingError:
            return ()
        except LarderError as error:
            faults.append((what, error))
            return ()
        queried.append(what)
        return found

    seen = Status(
        collect("leases", leases.find_all),
        collect("servers", servers.list_ours),
        collect("floating IPs", addresses.list_ours),
        collect("security groups", networks.our_groups),
        collect("volumes", volumes.list_ours),
        collect("buckets", objects.list_ours),
        collect("credentials", credentials.list_ours),
        routers=collect("routers", lease_network.list_routers),
        shares=collect("shares", shares.list_ours),
        access=collect("access rules", shares.list_access),
        used_leases=collect("the used lease", leases.list_used) if _uses_lease(stack) else (),
    )
    if faults and not queried:
        raise faults[0][1]
    return replace(
        seen, unseen=tuple(f"{what}: {error.what}" for what, error in faults), not_offered=_not_offered(stack)
    )


def _uses_lease(stack: Stack) -> bool:
    return stack.declaration.lease is not None and stack.declaration.lease.use is not None


def _not_offered(stack: Stack) -> tuple[str, ...]:
    """Return a line for each site that lacks services. A site that can't be logged in to is named in `unseen`."""
    lines = []
    for cloud in stack.clouds.both:
        with suppress(LarderError):
            if names := cloud.missing_services():
                lines.append(f"{cloud} offers no {', no '.join(names)}")
    return tuple(lines)


def table(rows: list[tuple[str, ...]]) -> Lines:
    """Format rows as aligned columns."""
    rows = [tuple(map(escape, row)) for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))] if rows else []
    return join_lines(
        *("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    )


def as_table(resources: list[Resource]) -> Lines:
    """Return resources as a table."""
    return table([row(item) for item in resources])


def row(item: Resource) -> tuple[str, ...]:
    """Return a resource as a row of a table."""
    return (item.kind, item.name, item.id, item.status, item.detail)
