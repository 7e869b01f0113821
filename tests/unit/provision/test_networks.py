"""The rules in a cloud's answers."""

from __future__ import annotations

import pytest

from larder.errors import ServiceError
from provision.networks import _covers


def rule(prefix: object, version: str = "IPv4") -> dict[str, object]:
    return {
        "direction": "ingress",
        "remote_group_id": None,
        "protocol": "tcp",
        "port_range_min": 22,
        "port_range_max": 22,
        "ethertype": version,
        "remote_ip_prefix": prefix,
    }


@pytest.mark.parametrize(
    ("prefix", "covers"),
    [(None, True), ("0.0.0.0/0", True), ("192.0.2.9/24", True), ("198.51.100.0/24", False), ("::/0", False)],
)
def test_a_rule_lets_in_what_its_network_holds(prefix: object, covers: bool) -> None:
    assert _covers(rule(prefix), 22, "192.0.2.7/32") == covers


@pytest.mark.parametrize("prefix", ["everybody", "192.0.2.0/99", 7, "fe80::1%x/64"])
def test_a_rule_with_no_network_is_reported(prefix: object) -> None:
    with pytest.raises(ServiceError, match="expected: a network"):
        _covers(rule(prefix), 22, "192.0.2.7/32")
