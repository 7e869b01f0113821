"""Leases: a small client of Blazar's API, version 1, over keystoneauth.

openstacksdk has none for it. Version 2 knows no "now", so the catalog's address is used as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from keystoneauth1 import exceptions as ksa
from keystoneauth1.adapter import Adapter

from larder.errors import ConfigurationError, InputError, ServiceError
from provision import answers, marks
from provision.clouds import AGAIN, make, wait
from provision.marks import Thing
from provision.stack import Stack

FORMAT = "%Y-%m-%d %H:%M"
OVER = ("TERMINATING", "TERMINATED", "ERROR", "DELETING")
WARN_HOURS = 2.0
SHOWS_LATER = "whether there is room shows when `up` asks for it"
NO_HOSTS = "Not enough hosts available"


@dataclass(frozen=True)
class Lease:
    """A lease of ours."""

    id: str
    status: str
    end: datetime
    reservation: str
    """The reservation's id."""

    @property
    def flavor(self) -> str:
        """The name of the flavor that boots on it."""
        return f"reservation:{self.reservation}"

    @property
    def over(self) -> bool:
        """By the cloud's own word: this machine's clock may be wrong, and what is over is deleted."""
        return self.status in OVER

    @property
    def hours_left(self) -> float:
        """By this machine's clock: to tell people, and never less than none."""
        return max((self.end - datetime.now(UTC)).total_seconds() / 3600, 0)

    @property
    def thing(self) -> Thing:
        left = "over" if self.over else f"ends {self.end:%Y-%m-%d %H:%M} UTC, in {self.hours_left:.1f} h"
        return Thing("lease", "", self.id, self.status, left, raw=self)


def adapter(stack: Stack) -> Any:
    """Speaks to Blazar; ConfigurationError where the site has none."""
    address = stack.clouds.compute.endpoint("reservation")
    if not address:
        raise ConfigurationError(
            f"{stack.clouds.compute} offers no leases: its catalog has no service 'reservation'",
            next_step="remove [lease] from the declaration: servers start without one there; or check the region",
        )
    return Adapter(stack.clouds.compute.connection.session, service_type="reservation", endpoint_override=address)


def find_all(stack: Stack) -> list[Lease]:
    """Our leases, those that are over included."""
    name, project = marks.lease_name(stack.owner), stack.clouds.compute.project_id
    with stack.step("list leases"):
        found = adapter(stack).get("/leases").json()["leases"]
        return [_lease(item) for item in found if item["name"] == name and item.get("project_id", project) == project]


def find(stack: Stack) -> Lease | None:
    """Our lease that isn't over."""
    things = [lease.thing for lease in find_all(stack) if not lease.over]
    found = marks.one(things, stack.adopt)
    return found.raw if found else None


def _lease(item: Any) -> Lease:
    reservations = item.get("reservations") or [{}]
    reservation = reservations[0].get("id") or ""
    return Lease(
        answers.identifier(item["id"], "the id of a lease"), str(item["status"]), _date(item["end_date"]),
        reservation and answers.identifier(reservation, "the id of a reservation"),
    )  # fmt: skip


def _date(text: str) -> datetime:
    """A moment as Blazar writes it: in UTC, without saying so."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except (TypeError, ValueError):
        raise answers.refused("a date of a lease", text, "date") from None


def create(stack: Stack, flavor_id: str, hours: float) -> Lease:
    """Make a lease from now on and wait until it is active."""
    end = (datetime.now(UTC) + timedelta(hours=hours)).strftime(FORMAT)
    reservation = {"resource_type": "flavor:instance", "flavor_id": flavor_id, "amount": 1, "affinity": None}
    body = {
        "name": marks.lease_name(stack.owner), "start_date": "now", "end_date": end, "before_end_date": None,
        "events": [], "reservations": [reservation],
    }  # fmt: skip

    def ask() -> Lease:
        try:
            return _lease(adapter(stack).post("/leases", json=body).json()["lease"])
        except ksa.HttpError as error:
            raise _no_capacity() if _lacks_hosts(error) else error from None

    lease = make(stack.clouds.compute, "make a lease", ask, lambda: find(stack))
    return wait_active(stack, lease)


def wait_active(stack: Stack, lease: Lease) -> Lease:
    """Wait until the lease is active, which is when its flavor can be used."""

    def look() -> Lease | None:
        now = next((item for item in find_all(stack) if item.id == lease.id), None)
        if now is None or now.over:
            raise ServiceError(f"the lease {lease.id} ended before it was active ({now.status if now else 'gone'})",
                               next_step="run `up` again: it makes another one")  # fmt: skip
        return now if now.status == "ACTIVE" else None

    return wait(stack.reporter, f"the lease {lease.id} is active", look, stack.declaration.limits.lease, AGAIN)


def _lacks_hosts(error: ksa.HttpError) -> bool:
    """Whether Blazar has no room: it says so as a fault of its own (500), in a form that keystoneauth can't read."""
    return error.response is not None and NO_HOSTS in error.response.text


def _no_capacity() -> InputError:
    return InputError(
        f"there is no room for the lease: {NO_HOSTS.lower()}",
        next_step="ask for a smaller flavor or fewer hours, look into the site's calendar of leases, or try later",
    )


def room(stack: Stack, flavor: Any, hours: float) -> str:
    """What Blazar tells of room for a lease from now on; InputError where no host is large enough for the flavor.

    It tells when hosts are reserved, not how much of them. Many sites show their hosts to nobody but their operators.
    """
    hosts, allocations = _told(stack, "hosts", "/os-hosts"), _told(stack, "allocations", "/os-hosts/allocations")
    if hosts is None or allocations is None:
        return f"this site doesn't tell members what is free; {SHOWS_LATER}"
    large = {str(host["id"]) for host in hosts if host.get("reservable", True) and _holds(host, flavor)}
    if not large:
        raise _no_capacity()
    now, end = datetime.now(UTC), datetime.now(UTC) + timedelta(hours=hours)
    reserved = {str(item["resource_id"]) for item in allocations
                if any(_date(held["start_date"]) < end and _date(held["end_date"]) > now
                       for held in item["reservations"])}  # fmt: skip
    if free := large - reserved:
        return f"there is room: {len(free)} of {len(large)} hosts that are large enough aren't reserved in that time"
    return f"all {len(large)} hosts that are large enough are reserved, in part at least; {SHOWS_LATER}"


def _told(stack: Stack, key: str, path: str) -> list[Any] | None:
    """A list of Blazar's, None where it is kept from us."""
    with stack.step("look for room for a lease"):
        answer = adapter(stack).get(path, raise_exc=False)
        if answer.status_code in (403, 404):
            return None
        if answer.status_code != 200:
            raise ksa.from_response(answer, "GET", path)
    found: list[Any] = answer.json()[key]
    return found


def _holds(host: Any, flavor: Any) -> bool:
    """Whether an empty host could hold the flavor. The root disk counts also when it is a volume: so Blazar does it."""
    return bool(host["vcpus"] >= flavor.vcpus and host["memory_mb"] >= flavor.ram and host["local_gb"] >= flavor.disk)


def extend(stack: Stack, hours: float) -> Lease:
    """Move the end of our lease by `hours`."""
    lease = find(stack)
    if lease is None:
        raise InputError(
            f"the stack {stack.name} has no lease that runs", next_step="`up` makes one, where [lease] is declared"
        )
    end = (lease.end + timedelta(hours=hours)).strftime(FORMAT)
    stack.say("extend", f"the lease from {lease.end:{FORMAT}} to {end} UTC")

    def ask() -> Lease:
        try:
            adapter(stack).put(f"/leases/{lease.id}", json={"end_date": end})
        except ksa.HttpError as error:
            raise _no_capacity() if _lacks_hosts(error) else error from None
        return next(item for item in find_all(stack) if item.id == lease.id)

    def moved() -> Lease | None:
        return next((item for item in find_all(stack) if item.id == lease.id and f"{item.end:{FORMAT}}" == end), None)

    try:
        return make(stack.clouds.compute, "extend the lease", ask, moved)
    except ServiceError as error:  # run again it would count from the new end, if there is one
        raise ServiceError(error.what, next_step=f"see in `status` whether the lease ends at {end} UTC already; "
                           "extend it again only if it doesn't") from error  # fmt: skip


def delete(stack: Stack, lease: Lease) -> None:
    """Delete a lease, and with it its server, and wait until it is gone."""
    with stack.step("delete the lease"):
        answer = adapter(stack).delete(f"/leases/{lease.id}", raise_exc=False)
        if answer.status_code not in (200, 202, 204, 404):
            raise ksa.from_response(answer, "DELETE", f"/leases/{lease.id}")

    def gone() -> bool | None:
        return None if any(item.id == lease.id for item in find_all(stack)) else True

    wait(stack.reporter, f"the lease {lease.id} is gone", gone, stack.declaration.limits.lease, AGAIN)


def warning(lease: Lease) -> str:
    """What to say when a lease ends soon; empty when it doesn't."""
    if lease.over:
        return f"the lease {lease.id} is over: the server went with it; `up` makes both anew"
    if lease.hours_left < WARN_HOURS:
        return (f"the lease ends in {lease.hours_left * 60:.0f} minutes, and with it the server is deleted; "
                "`lease extend HOURS` moves the end")  # fmt: skip
    return ""
