"""What there is of a stack, declared or not: everything that carries its mark."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from provision import credentials, leases, networks, objects, servers, volumes
from provision.leases import Lease
from provision.marks import Thing
from provision.stack import Stack


@dataclass(frozen=True)
class Status:
    """All that carries the stack's mark, and what to warn of."""

    leases: tuple[Lease, ...]
    servers: tuple[Thing, ...]
    addresses: tuple[Thing, ...]
    groups: tuple[Thing, ...]
    volumes: tuple[Thing, ...]
    buckets: tuple[Thing, ...]
    keys: tuple[Thing, ...]

    @property
    def things(self) -> list[Thing]:
        return [*(lease.thing for lease in self.leases), *self.servers, *self.addresses, *self.groups, *self.volumes,
                *self.buckets, *self.keys]  # fmt: skip

    @property
    def warnings(self) -> list[str]:
        found = [leases.warning(lease) for lease in self.leases]
        found += [f"{server} is in ERROR: `up` says why" for server in self.servers if server.status == "ERROR"]
        return [text for text in found if text]

    def json(self) -> dict[str, Any]:
        rows = [asdict(thing) for thing in (_bare(thing) for thing in self.things)]
        return {"things": [{key: value for key, value in row.items() if key != "raw"} for row in rows],
                "warnings": self.warnings}  # fmt: skip


def _bare(thing: Thing) -> Thing:
    return Thing(thing.kind, thing.name, thing.id, thing.status, thing.detail, thing.ours)


def look(stack: Stack) -> Status:
    """Ask both sites."""
    return Status(
        tuple(leases.find_all(stack)) if stack.clouds.compute.endpoint("reservation") else (),
        tuple(item for item in servers.candidates(stack) if item.ours),
        tuple(networks.our_addresses(stack)), tuple(networks.our_groups(stack)), tuple(volumes.ours(stack)),
        tuple(objects.ours(stack)), _keys(stack),
    )  # fmt: skip


def _keys(stack: Stack) -> tuple[Thing, ...]:
    found = credentials.find(stack) if stack.clouds.objects.endpoint("object-store") else None
    return (Thing("credentials", found.access, found.id, "", "S3 keys"),) if found else ()


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows in columns, for people."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))] if rows else []
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_table(things: list[Thing]) -> str:
    return table([(item.kind, item.name, item.id, item.status, item.detail) for item in things])
