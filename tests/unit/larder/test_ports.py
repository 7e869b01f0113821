"""Ports of the loopback interface."""

from __future__ import annotations

import os
import re
import socket

import pytest

from larder.errors import ResourceError
from larder.ports import LOOPBACK, describe_listener, free_above, is_free, require_free
from tests.conftest import free_ports


def test_who_listens_is_named() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        assert re.fullmatch(rf"\S.* \(process {os.getpid()}\)", describe_listener(port))
        with pytest.raises(ResourceError, match=rf"port {port} is taken by .*{os.getpid()}") as caught:
            require_free(port, "set PORT")
        assert caught.value.next_step == "stop it, or set PORT"


def test_who_listens_on_another_address_is_named_too() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert f"process {os.getpid()}" in describe_listener(server.getsockname()[1])


def test_nobody_listens() -> None:
    [port] = free_ports(1)
    assert describe_listener(port) == "another program"
    require_free(port, "")


def test_taken_ports_are_passed_over() -> None:
    [port] = free_ports(1)
    with socket.create_server((LOOPBACK, port)):
        assert port not in free_above(port - 1, 3)
    with pytest.raises(ResourceError, match="only 0 free ports above 65535"):
        free_above(65535, 1)
