"""What is free for a lease, and when, as far as Blazar tells.

Chameleon's Blazar tells members how many servers of a flavor fit at each time. For nodes, and elsewhere, the lists of
hosts and of their reservations tell it; many sites show these only to operators.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from keystoneauth1 import exceptions as ksa

from larder.errors import LarderError
from provision import servers
from provision.leases import FORMAT, blazar_client, parse_date
from provision.reservations import NoCapacityError
from provision.stack import Stack

SHOWS_LATER = "`up` shows whether there is capacity"
UNKNOWN = f"this site doesn't tell members what is free; {SHOWS_LATER}"
HORIZON = timedelta(days=30)
"""How far ahead a flavor's capacity is asked for."""
Interval = tuple[datetime, datetime]


@dataclass(frozen=True)
class Capacity:
    """What is free for the declared lease."""

    text: str
    is_lacking: bool = False
    """Whether the lease would surely be refused."""
    next_start: datetime | None = None
    """When a lease of this length could begin, if not at the declared time."""

    @property
    def fault(self) -> NoCapacityError | None:
        """The error, if the lease would be refused."""
        if not self.is_lacking:
            return None
        return NoCapacityError(f"no capacity for the lease: {self.text}", next_step=_remedy(self.next_start))


def _remedy(start: datetime | None) -> str:
    later = f'declare [lease] start = "{start:{FORMAT}}", which `up` reserves at once; or ' if start else ""
    return f"{later}ask for another flavor or node type, or for fewer hours, or try later"


def explain(stack: Stack, error: NoCapacityError) -> NoCapacityError:
    """Return the error of a refused lease with the time from which there is capacity, if the site tells."""
    try:
        seen = describe(stack)
    except LarderError:
        return error
    return (
        NoCapacityError(f"{error.what} ({seen.text})", next_step=_remedy(seen.next_start)) if seen.is_lacking else error
    )


def describe(stack: Stack) -> Capacity:
    """Describe the capacity for the declared lease.

    Raises InputError if the site has no node of the declared type, or no host that is large enough for the flavor.
    """
    lease, server = stack.declaration.lease, stack.declaration.server
    assert lease and server
    start = lease.start or datetime.now(UTC)
    wanted = start, start + timedelta(hours=lease.declared_hours)
    if lease.node_type:
        return _nodes(stack, lease.node_type, wanted)
    flavor = servers.find_flavor(stack, server.flavor)
    return _flavor(stack, flavor, wanted) or _hosts(stack, flavor, wanted)


def _nodes(stack: Stack, node_type: str, wanted: Interval) -> Capacity:
    hosts, busy = _read_hosts(stack)
    if hosts is None:
        return Capacity(UNKNOWN)
    matching = [str(host["id"]) for host in hosts if host.get("node_type") == node_type]
    if not matching:
        raise servers.not_found_error(
            "node type",
            node_type,
            [*{str(host["node_type"]) for host in hosts if host.get("node_type")}],
            "correct [lease] node_type",
        )
    if busy is None:
        return Capacity(f"{len(matching)} nodes; {UNKNOWN}")
    return _compare({id: busy.get(id, []) for id in matching}, f"nodes of the type {node_type}", wanted)


def _flavor(stack: Stack, flavor: Any, wanted: Interval) -> Capacity | None:
    """Return the capacity for a flavor by Chameleon's own request, or None if the site doesn't answer it."""
    query = {"flavor_id": flavor.id}
    query |= {"start_date": f"{wanted[0]:{FORMAT}}", "end_date": f"{wanted[0] + HORIZON:{FORMAT}}"}
    told = _read_list(stack, "flavor_instances", "/flavor-instances/availability", query)
    segments = [segment for item in told or [] for segment in item["availability"] if item["flavor_id"] == flavor.id]
    if not segments:
        return None
    busy = [_interval(segment["start"], segment["end"]) for segment in segments if segment["available"] < 1]
    begin = _first_start(busy, wanted)
    if begin == wanted[0]:
        counts = [item for item in segments if _overlap(_interval(item["start"], item["end"]), wanted)]
        free, total = (min((item[key] for item in counts), default=0) for key in ("available", "total"))
        return Capacity(f"there is capacity: at least {free} of {total} are free in that time")
    if begin > wanted[0] + HORIZON - (wanted[1] - wanted[0]):
        return Capacity(f"all are reserved within {HORIZON.days} days", is_lacking=True)
    return _lacking(f"all of flavor {flavor.name} are reserved in that time", begin, wanted)


def _hosts(stack: Stack, flavor: Any, wanted: Interval) -> Capacity:
    """Return the capacity for a flavor by hosts. Blazar tells when they are reserved, but not how much of them."""
    hosts, busy = _read_hosts(stack)
    if hosts is None or busy is None:
        return Capacity(UNKNOWN)
    large = {str(host["id"]) for host in hosts if _holds(host, flavor)}
    if not large:
        raise NoCapacityError(
            f"no capacity for the lease: no host is large enough for the flavor {flavor.name}",
            next_step="ask for a smaller flavor",
        )
    seen = _compare({id: busy.get(id, []) for id in large}, "hosts that are large enough", wanted)
    if not seen.is_lacking:
        return seen
    return Capacity(f"all {len(large)} hosts that are large enough are reserved, in part at least; {SHOWS_LATER}")


def _compare(busy: Mapping[str, Sequence[Interval]], what: str, wanted: Interval) -> Capacity:
    """Return how many hosts are free, or when the first one is."""
    starts = [_first_start(intervals, wanted) for intervals in busy.values()]
    if free := starts.count(wanted[0]):
        return Capacity(f"there is capacity: {free} of {len(busy)} {what} aren't reserved in that time")
    return _lacking(f"all {len(busy)} {what} are reserved in that time", min(starts), wanted)


def _lacking(text: str, begin: datetime, wanted: Interval) -> Capacity:
    hours = (wanted[1] - wanted[0]).total_seconds() / 3600
    return Capacity(f"{text}; one is free for {hours:g} h from {begin:{FORMAT}} UTC on", True, begin)


def _first_start(busy: Iterable[Interval], wanted: Interval) -> datetime:
    """Return the earliest time from which nothing is reserved for as long as is wanted."""
    start, length = wanted[0], wanted[1] - wanted[0]
    for begin, end in sorted(busy):
        if begin < start + length and end > start:
            start = end
    return start


def _overlap(one: Interval, other: Interval) -> bool:
    return one[0] < other[1] and one[1] > other[0]


def _read_hosts(stack: Stack) -> tuple[list[Any] | None, dict[str, list[Interval]] | None]:
    """Return the hosts that can be reserved, and when each is reserved; None for what the user may not see."""
    hosts, allocations = (_read_list(stack, "hosts", "/os-hosts"), None)
    if hosts is not None:
        allocations = _read_list(stack, "allocations", "/os-hosts/allocations")
        hosts = [host for host in hosts if host.get("reservable", True) and not host.get("disabled")]
    if allocations is None:
        return hosts, None
    return hosts, {
        str(item["resource_id"]): [_interval(held["start_date"], held["end_date"]) for held in item["reservations"]]
        for item in allocations
    }


def _interval(start: str, end: str) -> Interval:
    return parse_date(start), parse_date(end)


def _read_list(stack: Stack, key: str, path: str, query: Mapping[str, str] | None = None) -> list[Any] | None:
    """Return a list of Blazar, or None if the user may not see it, or the site doesn't have it."""
    with stack.translate_errors("check the capacity for a lease"):
        answer = blazar_client(stack).get(path, params=query or {}, raise_exc=False)
        if answer.status_code in (403, 404):
            return None
        if answer.status_code != 200:
            raise ksa.from_response(answer, "GET", path)
    resources: list[Any] = answer.json()[key]
    return resources


def _holds(host: Any, flavor: Any) -> bool:
    """Return whether an empty host could hold the flavor. Like Blazar, count the root disk even if it is a volume."""
    return bool(host["vcpus"] >= flavor.vcpus and host["memory_mb"] >= flavor.ram and host["local_gb"] >= flavor.disk)
