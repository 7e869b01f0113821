"""A small client of Blazar's API for leases, version 1, over keystoneauth.

openstacksdk has no client for it. Version 2 doesn't support "now", so the catalog's address is used unchanged.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from keystoneauth1 import exceptions as ksa
from keystoneauth1.adapter import Adapter

from larder.errors import ConfigurationError, InputError, LarderError, ServiceError
from larder.terminal import join_lines
from provision import answers, extension, marks
from provision.cloud_errors import RUN_AGAIN
from provision.clouds import create_once, poll_until
from provision.concurrency import withdraw_if_later
from provision.declaration import LeaseSpec
from provision.extension import Extension
from provision.marks import Resource
from provision.reservations import COMPUTE, PHYSICAL, Reservation, refusal
from provision.stack import Stack

FORMAT = "%Y-%m-%d %H:%M"
OVER = ("TERMINATING", "TERMINATED", "ERROR", "DELETING")
NOT_BEGUN = ("CREATING", "PENDING")
WARN_HOURS = 2.0
SLEEP_SECONDS = 60.0
"""How often waiting for a lease that begins later looks at the clock, which may change meanwhile."""


class LeaseBeginsLaterError(LarderError):
    """The lease begins later, so there is no server yet. Not a failure: `up` did everything else."""


@dataclass(frozen=True)
class Lease:
    """A lease of this stack, or one that it uses."""

    id: str
    status: str
    end: datetime
    reservation: str
    """The id of the reservation that the server runs on."""
    created_at: str = ""
    name: str = ""
    start: datetime | None = None
    reservations: tuple[Reservation, ...] = ()
    is_used: bool = False
    """Whether the declaration names it, so that it is neither changed nor deleted."""

    @property
    def is_physical(self) -> bool:
        """Whether it reserves a bare-metal node, on which the declared flavor runs."""
        return any(item.kind == PHYSICAL for item in self.reservations if item.id == self.reservation)

    @property
    def flavor(self) -> str:
        """The name of the flavor for servers on this lease, unless it is physical."""
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
    def seconds_to_begin(self) -> float:
        """The seconds until it begins by this machine's clock; 0 if it has begun."""
        if self.start is None or self.status not in NOT_BEGUN:
            return 0
        return max((self.start - datetime.now(UTC)).total_seconds(), 0)

    @property
    def resource(self) -> Resource:
        """The lease as a resource."""
        texts = [f"begins {_in_words(self.start)}"] if self.start and self.seconds_to_begin else []
        texts += ["over" if self.is_over else f"ends {_in_words(self.end)}"]
        texts += ["used, never deleted"] if self.is_used else []
        name = self.name if self.is_used else ""
        return Resource("lease", name, self.id, self.status, "; ".join(texts), not self.is_used, raw=self)


def _in_words(moment: datetime) -> str:
    hours = max((moment - datetime.now(UTC)).total_seconds() / 3600, 0)
    return f"{moment:{FORMAT}} UTC, in {hours:.1f} h"


def blazar_client(stack: Stack) -> Any:
    """Return the client for Blazar. Raises ServiceMissingError if the site has none."""
    stack.clouds.compute.require("reservation")
    address = stack.clouds.compute.endpoint("reservation")
    return Adapter(stack.clouds.compute.connection.session, service_type="reservation", endpoint_override=address)


def _list(stack: Stack) -> list[Any]:
    """Return all leases of the project. To an operator, Blazar lists those of all projects."""
    project = stack.clouds.compute.project_id
    with stack.translate_errors("list leases"):
        listed: list[Any] = blazar_client(stack).get("/leases").json()["leases"]
        return [item for item in listed if item.get("project_id", project) == project]


def find_all(stack: Stack) -> list[Lease]:
    """Return our leases, including finished ones."""
    name, listed = marks.lease_name(stack.owner), _list(stack)
    with stack.translate_errors("list leases"):
        return [_lease(item) for item in listed if item["name"] == name]


def find(stack: Stack) -> Lease | None:
    """Return our current lease, or None."""
    resources = [lease.resource for lease in find_all(stack) if not lease.is_over]
    resource = marks.select_one(resources, stack.adopt)
    return resource.raw if resource else None


def current(stack: Stack) -> Lease | None:
    """Return the lease for the server: ours, or the one that the declaration names; None if there is none yet."""
    declared = stack.declaration.lease
    if declared is None:
        return None
    return find(stack) if declared.use is None else find_used(stack, declared.use)


def find_used(stack: Stack, name: str) -> Lease:
    """Return an existing lease by its name, its id, or the id of one of its reservations.

    Raises InputError if there is no such lease, or it is over, or ambiguous, or this stack's own.
    """
    listed = _list(stack)
    with stack.translate_errors("list leases"):
        existing = [_lease(item, is_used=True, reservation=name) for item in listed]
    running = [item for item in existing if not item.is_over]
    matching = [item for item in running if name in (item.name, item.id, *(each.id for each in item.reservations))]
    if len(matching) == 1:
        return _check_used(stack, matching[0])
    texts = (f"  - {item.name} ({item.id}): {item.status} {item.resource.detail}" for item in matching or existing)
    problem = f"{len(matching)} leases" if matching else "no lease that runs or will begin"
    raise InputError(
        join_lines(f"[lease] use: {problem} of this project matches {name!r}; there are:", *texts or ["  - none"]),
        next_step="name one of them, by its id; or declare a lease of your own with `hours`",
    )


def list_used(stack: Stack) -> list[Lease]:
    """Return the lease that the declaration names, if it is there."""
    declared = stack.declaration.lease
    if declared is None or declared.use is None:
        return []
    with suppress(InputError):
        return [find_used(stack, declared.use)]
    return []


def _check_used(stack: Stack, lease: Lease) -> Lease:
    """Return a lease that may be used. Raises InputError unless it is clear which reservation the server gets."""
    if lease.name == marks.lease_name(stack.owner):
        raise InputError(
            f"the lease {lease.id} is this stack's own, which `down` deletes",
            next_step="declare it as it was made, with `hours` in place of `use`",
        )
    for_servers = [item for item in lease.reservations if item.kind in COMPUTE]
    if not any(item.id == lease.reservation for item in for_servers):
        texts = (f"  - {item.id}: {item.kind} {item.properties}".rstrip() for item in for_servers)
        raise InputError(
            join_lines(f"the lease {lease.name} ({lease.id}) has {len(for_servers)} reservations for servers:", *texts),
            next_step="name one of them in place of the lease: [lease] use = its id"
            if for_servers
            else "use a lease of a host or a flavor; this one reserves neither",
        )
    return lease


def _lease(item: Any, is_used: bool = False, reservation: str = "") -> Lease:
    """Return a lease of Blazar's list. With several reservations for servers, the one with the given id counts."""
    reservations = tuple(Reservation.parse(each) for each in item.get("reservations") or [])
    for_servers = [each.id for each in reservations if each.kind in COMPUTE]
    ours = for_servers[:1] if len(for_servers) == 1 or not is_used else []
    return Lease(
        answers.validate_identifier(item["id"], "the id of a lease"),
        str(item["status"]),
        parse_date(item["end_date"]),
        next(iter([each for each in for_servers if each == reservation] + ours), ""),
        str(item.get("created_at") or ""),
        str(item["name"]),
        parse_date(item["start_date"]) if item.get("start_date") else None,
        reservations,
        is_used,
    )


def parse_date(text: str) -> datetime:
    """Parse a time of Blazar, which is in UTC without a time zone."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except (TypeError, ValueError):
        raise answers.invalid_answer("a date of a lease", text, "a date") from None


def check_start(declared: LeaseSpec) -> None:
    """Raise ConfigurationError if a new lease would begin in the past."""
    if declared.start is not None and declared.start <= datetime.now(UTC):
        raise ConfigurationError(
            f"[lease] start has passed: {declared.start:{FORMAT}} UTC, and there is no lease",
            next_step="declare a later start, or none: the lease then begins at once",
        )


def begin_in_words(declared: LeaseSpec) -> str:
    """Return when a declared lease begins."""
    return f"from {_in_words(declared.start)}" if declared.start else "from now on"


def _dates(declared: LeaseSpec) -> dict[str, str]:
    """Return begin and end of a new lease as Blazar takes them."""
    check_start(declared)
    end = (declared.start or datetime.now(UTC)) + timedelta(hours=declared.declared_hours)
    return {
        "start_date": declared.start.strftime(FORMAT) if declared.start else "now",
        "end_date": end.strftime(FORMAT),
    }


def create(stack: Stack, declared: LeaseSpec, reservations: Sequence[dict[str, Any]]) -> Lease:
    """Create a lease, which may begin later."""
    body = {
        "name": marks.lease_name(stack.owner),
        **_dates(declared),
        "before_end_date": None,
        "events": [],
        "reservations": list(reservations),
    }

    def ask() -> Lease:
        try:
            return _lease(blazar_client(stack).post("/leases", json=body).json()["lease"])
        except ksa.HttpError as error:
            raise refusal(error) from None

    lease = create_once(stack.clouds.compute, "create a lease", ask, lambda: find(stack), stack.note("lease"))
    withdraw_if_later(
        stack,
        lease.resource,
        lambda: [item.resource for item in find_all(stack) if not item.is_over],
        lambda: delete(stack, lease),
    )
    return lease


def require_as_declared(stack: Stack, lease: Lease) -> None:
    """Raise InputError if our lease reserves something else than the declaration asks for."""
    assert stack.declaration.lease and stack.declaration.server
    node_type = stack.declaration.lease.node_type
    reserved = next((item for item in lease.reservations if item.id == lease.reservation), None)
    has_type = reserved is not None and bool(node_type) and f'"{node_type}"' in reserved.properties
    if bool(node_type) != lease.is_physical or (node_type and not has_type):
        wanted = f"a node of the type {node_type}" if node_type else f"the flavor {stack.declaration.server.flavor}"
        found = f"{reserved.kind} {reserved.properties}".strip() if reserved else "nothing for servers"
        raise InputError(
            f"the lease {lease.id} reserves {found}, and declared is {wanted}",
            next_step="run `down`, which ends the lease, and `up`; or declare what the lease reserves",
        )


def must_move(stack: Stack, lease: Lease) -> bool:
    """Return whether a lease of ours that begins later should begin at another time."""
    declared = stack.declaration.lease
    assert declared
    return not lease.is_used and lease.seconds_to_begin > 0 and lease.start != declared.start


def move(stack: Stack, lease: Lease) -> Lease:
    """Move a lease of ours that begins later to the declared time."""
    assert stack.declaration.lease
    dates = _dates(stack.declaration.lease)
    _update(stack, lease, dates, "move the lease")
    return _read(stack, lease)


def _update(stack: Stack, lease: Lease, fields: dict[str, str], action: str) -> None:
    """Change a lease, once."""
    end = fields["end_date"]

    def ask() -> bool:
        try:
            blazar_client(stack).put(f"/leases/{lease.id}", json=fields)
        except ksa.HttpError as error:
            raise refusal(error) from None
        return True

    def changed() -> bool | None:
        return True if f"{_read(stack, lease).end:{FORMAT}}" == end else None

    create_once(stack.clouds.compute, action, ask, changed)


def _read(stack: Stack, lease: Lease) -> Lease:
    """Return a lease as it is now. Raises InputError if it is gone."""
    listed = _list(stack)
    with stack.translate_errors("read the lease"):
        for item in listed:
            if item["id"] == lease.id:
                return _lease(item, lease.is_used, lease.reservation)
    raise InputError(f"the lease {lease.id} is gone", next_step="run `up`, which creates another one")


def wait_active(stack: Stack, lease: Lease, wait: bool = False) -> Lease:
    """Wait until the lease is active, so that its reservation can be used.

    Raises LeaseBeginsLaterError if it begins later than the time limit for leases, unless `wait` is true.
    """
    limit = stack.declaration.limits.lease
    if lease.start and lease.seconds_to_begin > limit:
        if not wait:
            raise LeaseBeginsLaterError(
                f"the lease {lease.id} begins {_in_words(lease.start)}",
                next_step="run `up` again then; or `up --wait` now, which waits for it",
            )
        stack.report("waiting", f"the lease {lease.id} begins {_in_words(lease.start)}")
        while lease.seconds_to_begin > limit:
            time.sleep(min(SLEEP_SECONDS, lease.seconds_to_begin))

    def check() -> Lease | None:
        now = _read(stack, lease)
        if now.is_over:
            raise ServiceError(
                f"the lease {lease.id} ended before it was active ({now.status})",
                next_step="name another lease"
                if lease.is_used
                else "run `up` again: it creates another one; the site's web interface shows the lease's events",
            )
        return now if now.status == "ACTIVE" else None

    what = f"the lease {lease.id} is active"
    return poll_until(stack.reporter, what, check, limit + lease.seconds_to_begin, RUN_AGAIN)


def extend(stack: Stack, hours: float) -> Lease:
    """Move the end of our lease by `hours`. The caller forgets the extension once its result is printed."""
    if stack.declaration.lease and stack.declaration.lease.use:
        raise InputError(
            f"the lease {stack.declaration.lease.use} is only used by this stack, and never changed",
            next_step="extend it where it was created, such as in the site's web interface",
        )
    lease = find(stack)
    if lease is None:
        raise InputError(f"the stack {stack.name} has no active lease", next_step="declare [lease], then run `up`")
    wanted = Extension(lease.id, hours, f"{lease.end:{FORMAT}}", (lease.end + timedelta(hours=hours)).strftime(FORMAT))
    unfinished = extension.read(stack.state_folder)
    if unfinished is not None and wanted.continues(unfinished):
        stack.report("note", f"this completes the interrupted extension to {unfinished.new_end} UTC")
        wanted = unfinished
    stack.report("extend", f"the lease from {wanted.old_end} to {wanted.new_end} UTC")
    wanted.write(stack.state_folder)
    try:
        if f"{lease.end:{FORMAT}}" != wanted.new_end:
            _update(stack, lease, {"end_date": wanted.new_end}, "extend the lease")
        return _read(stack, lease)
    except ServiceError as error:
        raise ServiceError(
            error.what,
            next_step=f"run the same command again: it extends the lease to {wanted.new_end} UTC, not further",
        ) from error
    except LarderError:  # refused
        extension.remove(stack.state_folder)
        raise


def delete(stack: Stack, lease: Lease) -> None:
    """Delete a lease of ours, which also deletes its server, and wait until it is gone."""
    assert not lease.is_used
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
        remedy = "extend it where it was created" if lease.is_used else "`lease extend HOURS` moves the end"
        return f"the lease ends in {lease.hours_left * 60:.0f} minutes, and then its server is deleted; {remedy}"
    return ""
