"""What there is of a stack, declared or not: everything that carries its mark."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from larder.errors import LarderError
from larder.terminal import Lines, escaped, lines
from provision import credentials, leases, networks, objects, servers, volumes
from provision.leases import Lease
from provision.marks import Thing
from provision.stack import Stack

T = TypeVar("T")


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
    unseen: tuple[str, ...] = ()
    """What could not be asked, and why: then there may be more."""

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
        rows = [asdict(replace(thing, raw=None)) for thing in self.things]
        return {"things": [{key: value for key, value in row.items() if key != "raw"} for row in rows],
                "warnings": self.warnings, "unseen": list(self.unseen)}  # fmt: skip


def look(stack: Stack) -> Status:
    """Ask both sites. What can't be asked stands in `unseen`; raises when that is everything."""
    faults: list[tuple[str, LarderError]] = []

    def ask(what: str, how: Callable[[Stack], Iterable[T]]) -> tuple[T, ...]:
        try:
            return tuple(how(stack))
        except LarderError as error:
            faults.append((what, error))
            return ()

    found = Status(
        ask("leases", _leases), ask("servers", servers.ours), ask("floating IPs", networks.our_addresses),
        ask("security groups", networks.our_groups), ask("volumes", volumes.ours), ask("buckets", objects.ours),
        ask("credentials", _keys),
    )  # fmt: skip
    if len(faults) == len(fields(Status)) - 1:  # nothing could be asked
        raise faults[0][1]
    return replace(found, unseen=tuple(f"{what}: {error.what}" for what, error in faults))


def _leases(stack: Stack) -> Iterable[Lease]:
    return leases.find_all(stack) if stack.clouds.compute.endpoint("reservation") else ()


def _keys(stack: Stack) -> tuple[Thing, ...]:
    found = credentials.find(stack) if stack.clouds.objects.endpoint("object-store") else None
    return (Thing("credentials", found.access, found.id, "", "S3 keys"),) if found else ()


def table(rows: list[tuple[str, ...]]) -> Lines:
    """Rows in columns, for people."""
    rows = [tuple(map(escaped, row)) for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))] if rows else []
    return lines(
        *("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    )


def as_table(things: list[Thing]) -> Lines:
    return table([row(item) for item in things])


def row(item: Thing) -> tuple[str, ...]:
    """A thing as a row of a table."""
    return (item.kind, item.name, item.id, item.status, item.detail)
