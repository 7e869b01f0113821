"""The end of a lease."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from provision.leases import Lease, expiry_warning


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
