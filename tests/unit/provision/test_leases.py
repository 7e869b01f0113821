"""When a lease is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from provision.leases import Lease, warning


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
def test_a_lease_is_over_when_the_cloud_says_so_whatever_the_clock_here_shows(
    status: str, hours: float, over: bool, says: str
) -> None:
    lease = Lease("4711", status, datetime.now(UTC) + timedelta(hours=hours, seconds=5), "r")
    assert lease.over == over and lease.hours_left >= 0
    assert says in warning(lease) if says else warning(lease) == ""
