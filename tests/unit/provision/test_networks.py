"""The address that we come from."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest

from provision.networks import caller

WAYS = [(socket.AF_INET6, ("::1", 5000, 0, 0)), (socket.AF_INET, ("127.0.0.1", 5000))]
"""To a cloud with addresses of both kinds, in the order in which systems prefer them."""


def test_an_address_of_ipv4_is_preferred_since_floating_ips_are(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(family, socket.SOCK_DGRAM, 17, "", target) for family, target in WAYS]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **options: answers)
    config = SimpleNamespace(get_auth_args=lambda: {"auth_url": "http://cloud.invalid:5000/v3"})
    site = SimpleNamespace(connection=SimpleNamespace(config=config))
    assert caller(cast(Any, SimpleNamespace(caller=None, clouds=SimpleNamespace(compute=site)))) == "127.0.0.1/32"
