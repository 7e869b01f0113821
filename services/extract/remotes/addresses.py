"""Refuse redirects from the internet into this machine or its network.

Otherwise a server could make larder read what only this machine can reach, such as the cloud credentials at
169.254.169.254. Names are resolved here, and the connection goes to the address that was checked, since a second
lookup could return another one.
"""

from __future__ import annotations

import ipaddress
import socket
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

from larder.errors import InputError

AddressKind = Literal["public", "private", "link-local", "loopback"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_TRANSLATED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::ffff:0:0:0/96"))
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215: the operator chooses where the IPv4 address is
_METADATA = (
    ipaddress.IPv6Network("fd00:ec2::/32"),  # AWS's, beside 169.254.169.254
    ipaddress.IPv4Network("168.63.129.16/32"),  # Azure's, which is public by its number
)


def classify_address(text: str) -> AddressKind:
    """Return the kind of an IP address. An IPv4 address inside an IPv6 address counts as that IPv4 address."""
    address = _embedded(ipaddress.ip_address(text.partition("%")[0]))
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    if address.is_link_local or any(address in network for network in _METADATA):
        return "link-local"
    private = not address.is_global or address.is_multicast or getattr(address, "is_site_local", False)
    if private or address in _LOCAL_NAT64:
        return "private"
    return "public"


def _embedded(address: Address) -> Address:
    """Return the IPv4 address inside an IPv6 address (mapped, compatible, 6to4, Teredo, NAT64, SIIT), else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inside = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
    if inside:
        return inside
    if any(address in network for network in _TRANSLATED) or 1 < int(address) < 1 << 32:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


class AddressPolicy:
    """Addresses that a download may connect to: any for the source; public ones and the source's kind for redirects."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._kinds: set[AddressKind] = {"public"}
        self.is_source = True
        """Whether the connection is to the source itself, not to a redirect."""

    def require(self, address: str) -> None:
        """Raise InputError if the current connection may not go to `address`."""
        if self.is_source:
            self.allow(address)
        else:
            self.require_allowed(address)

    def allow(self, address: str) -> None:
        """Allow the kind of address that the source has."""
        self._kinds.add(classify_address(address))

    def require_allowed(self, address: str) -> None:
        """Raise InputError if a redirect may not lead to `address`."""
        if (kind := classify_address(address)) not in self._kinds:
            raise InputError(
                f"{self._name}: the server redirects to {address}, a {kind} address: not followed",
                next_step="check LARDER_SOURCE; if you trust that address, give the URL there as LARDER_SOURCE",
            )

    def require_host(self, host: str) -> None:
        """Check a host by its name, as far as possible without resolving it. A proxy resolves names itself."""
        host = unicodedata.normalize("NFKC", host).replace("\N{IDEOGRAPHIC FULL STOP}", ".").rstrip(".").lower()
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


def checked_pools(policy: AddressPolicy) -> Mapping[str, type[HTTPConnectionPool]]:
    """Return urllib3 connection pool classes, by scheme, that connect only to allowed addresses."""

    class Checked:
        """A mixin that checks addresses before it connects."""

        def _new_conn(self: Any) -> socket.socket:
            try:
                addresses = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as fault:
                reason = fault if isinstance(fault, socket.gaierror) else socket.gaierror(str(fault))
                raise NameResolutionError(self.host, self, reason) from fault
            for *_, sockaddr in addresses:
                policy.require(str(sockaddr[0]))
            return _connect(self, [str(sockaddr[0]) for *_, sockaddr in addresses])

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
    """Connect to the first address that answers, as urllib3 does for a name."""
    failure: Exception = OSError("no address")
    for address in dict.fromkeys(addresses):
        try:
            return create_connection(
                (address, connection.port),
                connection.timeout,
                source_address=connection.source_address,
                socket_options=connection.socket_options,
            )
        except TimeoutError as fault:
            failure = ConnectTimeoutError(connection, f"no connection to {connection.host} in {connection.timeout} s")
            failure.__cause__ = fault
        except OSError as fault:
            failure = NewConnectionError(connection, f"no connection to {connection.host}: {fault}")
            failure.__cause__ = fault
    raise failure
