"""The begin and the end of a lease, and which servers run on it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from types import SimpleNamespace
from typing import Any

import pytest

from larder.progress import Reporter
from provision import leases, servers
from provision.declaration import Declaration
from provision.leases import Lease, LeaseBeginsLaterError, expiry_warning
from provision.reservations import Reservation


@pytest.mark.parametrize(
    ("status", "hours", "over", "says"),
    [
        ("ACTIVE", -5, False, "ends in 0 minutes"),
        ("ACTIVE", 1, False, "ends in 60 minutes"),
        ("ACTIVE", 5, False, ""),
        ("UPDATING", -5, False, "ends in 0 minutes"),
        ("TERMINATING", 5, True, "is over"),
        ("TERMINATED", 5, True, "is over"),
        ("ERROR", 5, True, "is over"),
        ("DELETING", 5, True, "is over"),
    ],
)
def test_the_cloud_decides_when_a_lease_is_over(status: str, hours: float, over: bool, says: str) -> None:
    lease = Lease("4711", status, datetime.now(UTC) + timedelta(hours=hours, seconds=5), "r")
    assert lease.is_over == over and lease.hours_left >= 0
    assert says in expiry_warning(lease) if says else expiry_warning(lease) == ""


NODE = Reservation("r", "physical:host", '["==", "$node_type", "gpu_a100"]')


class Clock(datetime):
    """This machine's clock, which only sleeping moves."""

    time = datetime(2030, 6, 3, 9, tzinfo=UTC)

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return cls.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        Clock.time += timedelta(seconds=seconds)

    before = Clock.time
    monkeypatch.setattr(leases, "datetime", Clock)
    monkeypatch.setattr(leases, "time", SimpleNamespace(sleep=sleep))
    yield slept
    Clock.time = before


def lease(hours: float, status: str = "PENDING", **more: Any) -> Lease:
    begin = Clock.time + timedelta(hours=hours)
    return Lease("4711", status, begin + timedelta(hours=1), "r", start=begin, **more)


def stack(**declared: Any) -> Any:
    table = {"name": "lab", "server": {"key": "k"}, "lease": {"hours": 1, **declared}, "limits": {"lease": 300}}
    return SimpleNamespace(
        declaration=Declaration.model_validate(table), reporter=Reporter("lab"), report=lambda *words: None
    )


def test_a_lease_that_begins_later_is_waited_for_on_request(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    later = lease(2)
    with pytest.raises(LeaseBeginsLaterError, match=r"begins 2030-06-03 11:00 UTC, in 2\.0 h"):
        leases.wait_active(stack(), later)
    assert clock == []
    monkeypatch.setattr(leases, "_read", lambda stack, lease: Lease("4711", "ACTIVE", later.end, "r"))
    assert leases.wait_active(stack(), later, wait=True).status == "ACTIVE"
    assert sum(clock) == 2 * 3600 - 300 and max(clock) == leases.SLEEP_SECONDS


@pytest.mark.parametrize(
    ("hours", "status", "declared", "moves"),
    [
        (2, "PENDING", 2, False),
        (2, "PENDING", 3, True),
        (2, "PENDING", None, True),
        (0, "PENDING", None, False),
        (-1, "ACTIVE", 3, False),
        (2, "ACTIVE", None, False),
    ],
)
def test_only_a_lease_that_has_not_begun_moves(
    clock: list[float], hours: float, status: str, declared: float | None, moves: bool
) -> None:
    start = {} if declared is None else {"start": Clock.time + timedelta(hours=declared)}
    assert leases.must_move(stack(**start), lease(hours, status)) == moves
    assert not leases.must_move(stack(**start), lease(hours, status, is_used=True))


def server(flavor: str = "baremetal", zone: str | None = "nova", **metadata: str) -> Any:
    names = SimpleNamespace(original_name=flavor, name=flavor)
    return SimpleNamespace(raw=SimpleNamespace(flavor=names, availability_zone=zone, metadata=metadata))


@pytest.mark.parametrize(
    ("candidate", "runs"),
    [
        (server(), False),
        (server(zone=None), False),
        (server("reservation:r-1"), True),
        (server("reservation:r-2"), False),
        (server(zone="blazar_r-1"), True),
        (server(zone="blazar_r-2"), False),
        (server(**{"larder:reservation": "r-1"}), True),
    ],
)
def test_which_servers_run_on_a_lease(candidate: Any, runs: bool) -> None:
    assert servers.runs_on(candidate, Lease("l", "ACTIVE", Clock.time, "r-1")) == runs
    assert not servers.runs_on(candidate, Lease("l", "ACTIVE", Clock.time, ""))


def test_a_lease_of_a_node_is_physical() -> None:
    address = Reservation("a", "virtual:floatingip")
    assert lease(1, reservations=(address, NODE)).is_physical
    assert not lease(1, reservations=(address, Reservation("r", "flavor:instance"))).is_physical
