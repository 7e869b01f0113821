"""Validate answers of clouds and servers before they reach a command line, an ssh_config, a path or a settings file.

Each function returns the value in its canonical form, or raises ServiceError with the invalid answer.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from larder.errors import ServiceError
from provision.host import share

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,127}")
_S3_KEY = re.compile(r"[A-Za-z0-9_+/=.-]{1,256}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_SHOWN = 80
NOTHING_DONE = "nothing was changed: check the site's web interface, or ask the site's operators"


def invalid_answer(what: str, answer: object, expected: str, next_step: str = NOTHING_DONE) -> ServiceError:
    """Return the error for an invalid answer, which is shortened and escaped."""
    return ServiceError(f"{what}: invalid answer {str(answer)[:_SHOWN]!r}, expected: {expected}", next_step=next_step)


def validate_address(answer: object, what: str) -> str:
    """Return a machine's IP address: no network, name or zone, and not unspecified, multicast or loopback."""
    address = _address(answer)
    if address is None or address.is_unspecified or address.is_multicast or address.is_loopback:
        raise invalid_answer(what, answer, "an IP address of a machine")
    return str(address)


def validate_public_address(answer: object, what: str, next_step: str) -> str:
    """Return a public IP address."""
    address = _address(answer)
    inner = getattr(address, "ipv4_mapped", None) or address
    if address is None or inner is None or inner.is_multicast or not inner.is_global:
        raise invalid_answer(what, answer, "a public IP address", next_step)
    return str(inner)


def _address(answer: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if not isinstance(answer, str) or "%" in answer:  # a zone may contain any text
        return None
    try:
        return ipaddress.ip_address(answer)
    except ValueError:
        return None


def validate_network(answer: object, what: str) -> Network:
    """Return a network in CIDR notation, ignoring host bits."""
    try:
        if isinstance(answer, str) and "%" not in answer:
            return ipaddress.ip_network(answer, strict=False)
    except ValueError:
        pass
    raise invalid_answer(what, answer, "a network")


def validate_identifier(answer: object, what: str) -> str:
    """Return an id: a word without options, paths or shell syntax."""
    if isinstance(answer, str) and _IDENTIFIER.fullmatch(answer):
        return answer
    raise invalid_answer(what, answer, "an id")


def validate_s3_key(answer: object, what: str) -> str:
    """Return an access key or a secret key, which is safe to write to settings files. The error doesn't show it."""
    if isinstance(answer, str) and _S3_KEY.fullmatch(answer):
        return answer
    raise ServiceError(f"{what} holds characters that no S3 key has", next_step="`credentials revoke`, then `up`")


def validate_whole_number(answer: object, what: str) -> int:
    """Return a size or a count."""
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < 2**63:
        return answer
    if isinstance(answer, str) and re.fullmatch(r"[0-9]{1,18}", answer):
        return int(answer)
    raise invalid_answer(what, answer, "a whole number")


def validate_base_url(answer: object, what: str) -> str:
    """Return scheme, host and port of an http(s) URL. Refuses user names and passwords in it."""
    try:
        parts = urlsplit(answer if isinstance(answer, str) else "")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise invalid_answer(what, answer, "an http address") from None
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or not is_host(host):
        raise invalid_answer(what, answer, "an http address")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")


def validate_export(answer: object, what: str) -> str:
    """Return the address of an NFS export, HOST:PATH, which is safe in a line of fstab."""
    if isinstance(answer, str) and share.parse_export(answer):
        return answer
    raise invalid_answer(what, answer, "an NFS export such as 10.0.0.7:/shares/photos")


def is_host(text: str) -> bool:
    """Return whether a text is an IP address or a DNS name."""
    return _address(text) is not None or _HOST.fullmatch(text) is not None
