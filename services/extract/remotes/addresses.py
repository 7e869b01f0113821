"""Where redirects may lead: not from the internet into this machine or its network.

A server that is asked for an archive could otherwise have us read what only this machine reaches, such as the keys that
clouds hand out at 169.254.169.254. Names are resolved here, and the very address that was checked is connected to.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import Any, Literal

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

from larder.errors import InputError

Kind = Literal["public", "private", "link-local", "loopback"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_METADATA = ipaddress.IPv6Network("fd00:ec2::/32")  # AWS's, beside 169.254.169.254


def kind_of(text: str) -> Kind:
    """Return what kind of address `text` is. An IPv4 address inside an IPv6 address counts as that IPv4 address."""
    address = _embedded(ipaddress.ip_address(text.partition("%")[0]))
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    if address.is_link_local or (isinstance(address, ipaddress.IPv6Address) and address in _METADATA):
        return "link-local"
    if not address.is_global or address.is_multicast or getattr(address, "is_site_local", False):
        return "private"
    return "public"


def _embedded(address: Address) -> Address:
    """The IPv4 address in one of IPv6: mapped, compatible, 6to4, Teredo, NAT64. Others as they are."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inside = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
    if inside:
        return inside
    if address in _NAT64 or 1 < int(address) < 1 << 32:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


class Places:
    """Where a download may connect to: the source anywhere, redirects to public addresses and the source's kind."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._kinds: set[Kind] = {"public"}
        self.is_source = True
        """Whether the source itself is connected to, and no redirect."""

    def require(self, address: str) -> None:
        """Raise InputError for an address that may not be connected to now."""
        if self.is_source:
            self.add(address)
        else:
            self.require_allowed(address)

    def add(self, address: str) -> None:
        """Note where the source itself is."""
        self._kinds.add(kind_of(address))

    def require_allowed(self, address: str) -> None:
        """Raise InputError for an address that a redirect may not lead to."""
        if (kind := kind_of(address)) not in self._kinds:
            raise InputError(
                f"{self._name}: the server redirects to {address}, a {kind} address: not followed",
                next_step="check LARDER_SOURCE; if you trust that address, give the URL there as LARDER_SOURCE",
            )

    def require_host(self, host: str) -> None:
        """The same by a host's name alone, as far as that tells: for what a proxy connects to."""
        if host == "localhost" or host.endswith(".localhost"):
            self.require("127.0.0.1")
            return
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            try:
                host = socket.inet_ntoa(socket.inet_aton(host))  # 2130706433, 0x7f.1
            except (OSError, UnicodeError):
                return
        self.require(host)


def checked_pools(places: Places) -> Mapping[str, type[HTTPConnectionPool]]:
    """Return urllib3's classes of connection pools, by scheme, that connect to `places` alone."""

    class Checked:
        """A connection whose address is checked."""

        def _new_conn(self: Any) -> socket.socket:
            try:
                found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as fault:
                reason = fault if isinstance(fault, socket.gaierror) else socket.gaierror(str(fault))
                raise NameResolutionError(self.host, self, reason) from fault
            for *_, place in found:
                places.require(str(place[0]))
            return _connect(self, [str(place[0]) for *_, place in found])

    class Http(Checked, HTTPConnection):
        pass

    class Https(Checked, HTTPSConnection):
        pass

    class HttpPool(HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(HTTPSConnectionPool):
        ConnectionCls = Https

    return {"http": HttpPool, "https": HttpsPool}


def _connect(connection: Any, addresses: list[str]) -> socket.socket:
    """Connect to the first address that answers, as urllib3 does with a name."""
    failure: Exception = OSError("no address")
    for address in dict.fromkeys(addresses):
        try:
            return create_connection(
                (address, connection.port), connection.timeout, source_address=connection.source_address,
                socket_options=connection.socket_options,
            )  # fmt: skip
        except TimeoutError as fault:
            failure = ConnectTimeoutError(connection, f"no connection to {connection.host} in {connection.timeout} s")
            failure.__cause__ = fault
        except OSError as fault:
            failure = NewConnectionError(connection, f"no connection to {connection.host}: {fault}")
            failure.__cause__ = fault
    raise failure
