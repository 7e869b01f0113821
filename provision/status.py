"""List the resources of a stack, declared or not: everything that carries its mark."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from larder.errors import LarderError
from larder.terminal import Lines, escape, join_lines
from provision import credentials, leases, networks, objects, servers, volumes
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

    @property
    def resources(self) -> list[Resource]:
        """All resources."""
        return [
            *(lease.resource for lease in self.leases),
            *self.servers,
            *self.addresses,
            *self.groups,
            *self.volumes,
            *self.buckets,
            *self.keys,
        ]

    @property
    def warnings(self) -> list[str]:
        """What needs attention: leases that end soon, servers in ERROR."""
        warnings = [leases.expiry_warning(lease) for lease in self.leases]
        warnings += [f"{server} is in ERROR: `up` says why" for server in self.servers if server.status == "ERROR"]
        return [text for text in warnings if text]

    def json(self) -> dict[str, Any]:
        """Return the status as JSON, without credentials."""
        rows = [asdict(replace(resource, raw=None)) for resource in self.resources]
        return {
            "things": [{key: value for key, value in row.items() if key != "raw"} for row in rows],
            "warnings": self.warnings,
            "unseen": list(self.unseen),
        }


def read_status(stack: Stack) -> Status:
    """Query both sites. Failures go to `unseen`; if everything fails, raise the first error."""
    faults: list[tuple[str, LarderError]] = []

    def collect(what: str, query: Callable[[Stack], Iterable[T]]) -> tuple[T, ...]:
        try:
            return tuple(query(stack))
        except LarderError as error:
            faults.append((what, error))
            return ()

    seen = Status(
        collect("leases", _leases),
        collect("servers", servers.list_ours),
        collect("floating IPs", networks.our_addresses),
        collect("security groups", networks.our_groups),
        collect("volumes", volumes.list_ours),
        collect("buckets", objects.list_ours),
        collect("credentials", _keys),
    )
    if len(faults) == len(fields(Status)) - 1:  # nothing could be queried
        raise faults[0][1]
    return replace(seen, unseen=tuple(f"{what}: {error.what}" for what, error in faults))


def _leases(stack: Stack) -> Iterable[Lease]:
    return leases.find_all(stack) if stack.clouds.compute.endpoint("reservation") else ()


def _keys(stack: Stack) -> tuple[Resource, ...]:
    keys = credentials.find(stack) if stack.clouds.objects.endpoint("object-store") else None
    return (Resource("credentials", keys.access, keys.id, "", "S3 keys"),) if keys else ()


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
