"""A small client of Blazar's API for leases, version 1, over keystoneauth.

openstacksdk has no client for it. Version 2 doesn't support "now", so the catalog's address is used unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from keystoneauth1 import exceptions as ksa
from keystoneauth1.adapter import Adapter

from larder.errors import InputError, ServiceError
from provision import answers, marks
from provision.cloud_errors import RUN_AGAIN, read_reason
from provision.clouds import create_once, poll_until
from provision.concurrency import withdraw_if_later
from provision.marks import Resource
from provision.stack import Stack

FORMAT = "%Y-%m-%d %H:%M"
OVER = ("TERMINATING", "TERMINATED", "ERROR", "DELETING")
WARN_HOURS = 2.0
SHOWS_LATER = "`up` shows whether there is capacity"
NO_HOSTS = "Not enough hosts available"


@dataclass(frozen=True)
class Lease:
    """A lease of this stack."""

    id: str
    status: str
    end: datetime
    reservation: str
    """The reservation's id."""
    created_at: str = ""

    @property
    def flavor(self) -> str:
        """The name of the flavor for servers on this lease."""
        return f"reservation:{self.reservation}"

    @property
    def is_over(self) -> bool:
        """Whether the cloud says that it is over. This machine's clock may be wrong, and such leases are deleted."""
        return self.status in OVER

    @property
    def hours_left(self) -> float:
        """The hours left by this machine's clock, at least 0; for messages only."""
        return max((self.end - datetime.now(UTC)).total_seconds() / 3600, 0)

    @property
    def resource(self) -> Resource:
        """The lease as a resource."""
        left = "over" if self.is_over else f"ends {self.end:%Y-%m-%d %H:%M} UTC, in {self.hours_left:.1f} h"
        return Resource("lease", "", self.id, self.status, left, raw=self)


def blazar_client(stack: Stack) -> Any:
    """Return the client for Blazar. Raises ServiceMissingError if the site has none."""
    stack.clouds.compute.require("reservation")
    address = stack.clouds.compute.endpoint("reservation")
    return Adapter(stack.clouds.compute.connection.session, service_type="reservation", endpoint_override=address)


def find_all(stack: Stack) -> list[Lease]:
    """Return our leases, including finished ones."""
    name, project = marks.lease_name(stack.owner), stack.clouds.compute.project_id
    with stack.translate_errors("list leases"):
        listed = blazar_client(stack).get("/leases").json()["leases"]
        return [_lease(item) for item in listed if item["name"] == name and item.get("project_id", project) == project]


def find(stack: Stack) -> Lease | None:
    """Return our current lease, or None."""
    resources = [lease.resource for lease in find_all(stack) if not lease.is_over]
    resource = marks.select_one(resources, stack.adopt)
    return resource.raw if resource else None


def _lease(item: Any) -> Lease:
    reservations = item.get("reservations") or [{}]
    reservation = reservations[0].get("id") or ""
    return Lease(
        answers.validate_identifier(item["id"], "the id of a lease"),
        str(item["status"]),
        _date(item["end_date"]),
        reservation and answers.validate_identifier(reservation, "the id of a reservation"),
        str(item.get("created_at") or ""),
    )


def _date(text: str) -> datetime:
    """Parse a time of Blazar, which is in UTC without a time zone."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except (TypeError, ValueError):
        raise answers.invalid_answer("a date of a lease", text, "a date") from None


def create(stack: Stack, flavor_id: str, hours: float) -> Lease:
    """Create a lease that starts now, and wait until it is active."""
    end = (datetime.now(UTC) + timedelta(hours=hours)).strftime(FORMAT)
    reservation = {"resource_type": "flavor:instance", "flavor_id": flavor_id, "amount": 1, "affinity": None}
    body = {
        "name": marks.lease_name(stack.owner),
        "start_date": "now",
        "end_date": end,
        "before_end_date": None,
        "events": [],
        "reservations": [reservation],
    }

    def ask() -> Lease:
        try:
            return _lease(blazar_client(stack).post("/leases", json=body).json()["lease"])
        except ksa.HttpError as error:
            raise _no_capacity() if _lacks_hosts(error) else error from None

    lease = create_once(stack.clouds.compute, "create a lease", ask, lambda: find(stack))
    withdraw_if_later(
        stack,
        lease.resource,
        lambda: [item.resource for item in find_all(stack) if not item.is_over],
        lambda: delete(stack, lease),
    )
    return wait_active(stack, lease)


def wait_active(stack: Stack, lease: Lease) -> Lease:
    """Wait until the lease is active, so that its flavor can be used."""

    def check() -> Lease | None:
        now = next((item for item in find_all(stack) if item.id == lease.id), None)
        if now is None or now.is_over:
            raise ServiceError(
                f"the lease {lease.id} ended before it was active ({now.status if now else 'gone'})",
                next_step="run `up` again: it creates another one",
            )
        return now if now.status == "ACTIVE" else None

    return poll_until(
        stack.reporter, f"the lease {lease.id} is active", check, stack.declaration.limits.lease, RUN_AGAIN
    )


def _lacks_hosts(error: ksa.HttpError) -> bool:
    """Return whether Blazar lacks capacity. It reports that as a server error (500) that keystoneauth can't parse."""
    return error.response is not None and NO_HOSTS in read_reason(error.response)


def _no_capacity() -> InputError:
    return InputError(
        f"there is no capacity for the lease: {NO_HOSTS.lower()}",
        next_step="ask for a smaller flavor or fewer hours, check the site's calendar of leases, or try later",
    )


def describe_capacity(stack: Stack, flavor: Any, hours: float) -> str:
    """Describe the capacity for a lease that starts now. Raises InputError if no host is large enough for the flavor.

    Blazar tells when hosts are reserved, but not how much of them. Many sites show their hosts only to operators.
    """
    hosts, allocations = (
        _read_list(stack, "hosts", "/os-hosts"),
        _read_list(stack, "allocations", "/os-hosts/allocations"),
    )
    if hosts is None or allocations is None:
        return f"this site doesn't tell members what is free; {SHOWS_LATER}"
    large = {str(host["id"]) for host in hosts if host.get("reservable", True) and _holds(host, flavor)}
    if not large:
        raise _no_capacity()
    now, end = datetime.now(UTC), datetime.now(UTC) + timedelta(hours=hours)
    reserved = {
        str(item["resource_id"])
        for item in allocations
        if any(_date(held["start_date"]) < end and _date(held["end_date"]) > now for held in item["reservations"])
    }
    if free := large - reserved:
        return (
            f"there is capacity: {len(free)} of {len(large)} hosts that are large enough aren't reserved in that time"
        )
    return f"all {len(large)} hosts that are large enough are reserved, in part at least; {SHOWS_LATER}"


def _read_list(stack: Stack, key: str, path: str) -> list[Any] | None:
    """Return a list of Blazar, or None if the user may not see it."""
    with stack.translate_errors("check the capacity for a lease"):
        answer = blazar_client(stack).get(path, raise_exc=False)
        if answer.status_code in (403, 404):
            return None
        if answer.status_code != 200:
            raise ksa.from_response(answer, "GET", path)
    resources: list[Any] = answer.json()[key]
    return resources


def _holds(host: Any, flavor: Any) -> bool:
    """Return whether an empty host could hold the flavor. Like Blazar, count the root disk even if it is a volume."""
    return bool(host["vcpus"] >= flavor.vcpus and host["memory_mb"] >= flavor.ram and host["local_gb"] >= flavor.disk)


def extend(stack: Stack, hours: float) -> Lease:
    """Move the end of our lease by `hours`."""
    lease = find(stack)
    if lease is None:
        raise InputError(f"the stack {stack.name} has no active lease", next_step="declare [lease], then run `up`")
    end = (lease.end + timedelta(hours=hours)).strftime(FORMAT)
    stack.report("extend", f"the lease from {lease.end:{FORMAT}} to {end} UTC")

    def ask() -> Lease:
        try:
            blazar_client(stack).put(f"/leases/{lease.id}", json={"end_date": end})
        except ksa.HttpError as error:
            raise _no_capacity() if _lacks_hosts(error) else error from None
        return next(item for item in find_all(stack) if item.id == lease.id)

    def moved() -> Lease | None:
        return next((item for item in find_all(stack) if item.id == lease.id and f"{item.end:{FORMAT}}" == end), None)

    try:
        return create_once(stack.clouds.compute, "extend the lease", ask, moved)
    except ServiceError as error:  # running it again would extend from the new end, if it succeeded
        raise ServiceError(
            error.what,
            next_step=f"see in `status` whether the lease ends at {end} UTC already; "
            "extend it again only if it doesn't",
        ) from error


def delete(stack: Stack, lease: Lease) -> None:
    """Delete a lease, which also deletes its server, and wait until it is gone."""
    with stack.translate_errors("delete the lease"):
        answer = blazar_client(stack).delete(f"/leases/{lease.id}", raise_exc=False)
        if answer.status_code not in (200, 202, 204, 404):
            raise ksa.from_response(answer, "DELETE", f"/leases/{lease.id}")

    def gone() -> bool | None:
        return None if any(item.id == lease.id for item in find_all(stack)) else True

    poll_until(stack.reporter, f"the lease {lease.id} is gone", gone, stack.declaration.limits.lease, RUN_AGAIN)


def expiry_warning(lease: Lease) -> str:
    """Return a warning if a lease is over or ends soon, else ""."""
    if lease.is_over:
        return f"the lease {lease.id} is over, and its server is deleted; `up` creates both again"
    if lease.hours_left < WARN_HOURS:
        return (
            f"the lease ends in {lease.hours_left * 60:.0f} minutes, and then its server is deleted; "
            "`lease extend HOURS` moves the end"
        )
    return ""
