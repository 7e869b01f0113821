"""What clouds and servers answer, checked before it reaches a command line, an ssh_config, a path or a settings file.

Each function returns the value in its one usual form, or raises ServiceError that says what was answered in its place.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from larder.errors import ServiceError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,127}")
_S3_KEY = re.compile(r"[A-Za-z0-9_+/=.-]{1,256}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_SHOWN = 80
NOTHING_DONE = "nothing was done with it: look at the site's web interface, or ask who runs the site"


def refused(what: str, answer: object, no: str, next_step: str = NOTHING_DONE) -> ServiceError:
    """The error for an answer that is `no` such thing; foreign text is shortened and escaped."""
    return ServiceError(f"{what} is answered as {str(answer)[:_SHOWN]!r}, which is no {no}", next_step=next_step)


def address(answer: object, what: str) -> str:
    """An address that a connection can be made to: no network, no name, no zone, nobody's and everybody's address."""
    found = _address(answer)
    if found is None or found.is_unspecified or found.is_multicast or found.is_loopback:
        raise refused(what, answer, "address of a machine")
    return str(found)


def public_address(answer: object, what: str, next_step: str) -> str:
    """One address of the public internet."""
    found = _address(answer)
    inner = getattr(found, "ipv4_mapped", None) or found
    if found is None or inner is None or inner.is_multicast or not inner.is_global:
        raise refused(what, answer, "public address", next_step)
    return str(inner)


def _address(answer: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if not isinstance(answer, str) or "%" in answer:  # a zone may be any text
        return None
    try:
        return ipaddress.ip_address(answer)
    except ValueError:
        return None


def network(answer: object, what: str) -> Network:
    """A network in CIDR notation; bits of a host in it don't matter."""
    try:
        if isinstance(answer, str) and "%" not in answer:
            return ipaddress.ip_network(answer, strict=False)
    except ValueError:
        pass
    raise refused(what, answer, "network")


def identifier(answer: object, what: str) -> str:
    """An id: a word that is neither an option, nor a path, nor anything for a shell."""
    if isinstance(answer, str) and _IDENTIFIER.fullmatch(answer):
        return answer
    raise refused(what, answer, "id")


def s3_key(answer: object, what: str) -> str:
    """An access key or a secret key, which files of settings get as they are. The error doesn't show it."""
    if isinstance(answer, str) and _S3_KEY.fullmatch(answer):
        return answer
    raise ServiceError(f"{what} holds characters that no S3 key has", next_step="`credentials revoke`, then `up`")


def whole_number(answer: object, what: str) -> int:
    """A size or a count."""
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < 2**63:
        return answer
    if isinstance(answer, str) and re.fullmatch(r"[0-9]{1,18}", answer):
        return int(answer)
    raise refused(what, answer, "whole number")


def base_url(answer: object, what: str) -> str:
    """Scheme, host and port of an http(s) address; user names and passwords in it are refused."""
    try:
        parts = urlsplit(answer if isinstance(answer, str) else "")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise refused(what, answer, "http address") from None
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or not is_host(host):
        raise refused(what, answer, "http address")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")


def is_host(text: str) -> bool:
    """Whether a text is an address or a name of DNS."""
    return _address(text) is not None or _HOST.fullmatch(text) is not None
