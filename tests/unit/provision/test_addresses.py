"""Floating IPs of servers whose port isn't there yet."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from larder.errors import InputError
from larder.progress import NullReporter
from provision import addresses, plan
from provision.marks import Resource

SERVER = Resource("server", "lab", "s1", "ACTIVE")
ADDRESS = Resource("floating IP", "203.0.113.9", "a1", "DOWN", raw=SimpleNamespace(port_id=None))


def stack_with(looks: list[list[str]]) -> Any:
    """A stack at a cloud that lists these ports, one list per look, the last one from then on."""

    def ports(device_id: str) -> list[Any]:
        listed = looks.pop(0) if len(looks) > 1 else looks[0]
        return [SimpleNamespace(id=id) for id in listed]

    made = SimpleNamespace(id="a1", floating_ip_address="203.0.113.9", status="ACTIVE", description="", tags=())
    network = SimpleNamespace(
        ports=ports, update_ip=lambda id, port_id: SimpleNamespace(**{**vars(made), "port_id": port_id})
    )
    return SimpleNamespace(
        owner="lab@0",
        reporter=NullReporter(),
        api=lambda service: network,
        declaration=SimpleNamespace(floating_ip=SimpleNamespace(reserve=False)),
        translate_errors=lambda action: nullcontext(),
    )


def test_an_address_waits_for_the_port_of_a_server_that_nova_is_still_building() -> None:
    assigned = addresses.assign(stack_with([[], [], ["p1"]]), ADDRESS, SERVER)
    assert assigned.raw.port_id == "p1"


def test_a_server_that_gets_no_port_is_an_error_with_a_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "PORT_SECONDS", 0.05)
    with pytest.raises(InputError, match="has no network port") as raised:
        addresses.assign(stack_with([[]]), ADDRESS, SERVER)
    assert "--replace" in raised.value.next_step


def test_the_plan_for_a_server_without_a_port_moves_the_address_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan.addresses, "find", lambda stack: ADDRESS)
    monkeypatch.setattr(plan.addresses, "require_here", lambda *_: None)
    monkeypatch.setattr(plan.servers, "list_ours", lambda stack: [SERVER])
    step = plan._address(stack_with([[]]), SERVER)
    assert (step.action, step.detail) == ("change", "to the server")
