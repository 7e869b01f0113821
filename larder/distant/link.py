"""Define a link: its round-trip time, its bandwidth, and when bytes that enter it come out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from larder.errors import ConfigurationError
from larder.next_step import StageRun

BURST_SECONDS = 0.004
"""Time for which an idle link saves up bandwidth, so that late timers don't lose any."""
MAX_LATENCY_SECONDS = 10.0
_LATENCY = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s)", re.IGNORECASE)
_BANDWIDTH = re.compile(r"(\d+(?:\.\d+)?) ?([kmg])bit(?:/s)?", re.IGNORECASE)
_FACTORS = {"k": 1e3, "m": 1e6, "g": 1e9}
UNLIMITED = "unlimited"


class Link(NamedTuple):
    """The way to a store."""

    latency_s: float
    """Round-trip time that is added."""
    bits_per_s: int | None
    """Bandwidth in each direction, of all connections together; None is unlimited."""

    def describe(self) -> str:
        """Return what the link adds, in words.

        Example:
            >>> Link(0.02, 200_000_000).describe()
            'a link of 20 ms and 200 Mbit/s'
        """
        limit = "" if self.bits_per_s is None else f" and {self.bits_per_s / 1e6:g} Mbit/s"
        return f"a link of {self.latency_s * 1000:g} ms{limit}"


def join_links(*links: Link | None) -> Link | None:
    """Return what links add together, one behind the other; None if all are.

    Example:
        >>> join_links(Link(0.02, None), None, Link(0.005, 1000))
        Link(latency_s=0.025, bits_per_s=1000)
    """
    present = [link for link in links if link is not None]
    if not present:
        return None
    limits = [link.bits_per_s for link in present if link.bits_per_s is not None]
    return Link(sum(link.latency_s for link in present), min(limits, default=None))


def recorded_link(provenance: Mapping[str, Any]) -> Link | None:
    """Return the link that a record's provenance names; None without one, and in records of earlier versions.

    Example:
        >>> recorded_link({"latency_s": 0.02, "bandwidth_bits_per_s": None})
        Link(latency_s=0.02, bits_per_s=None)
    """
    latency = provenance.get("latency_s")
    return None if latency is None else Link(latency, provenance.get("bandwidth_bits_per_s"))


def parse_link(latency: str, bandwidth: str) -> Link | None:
    """Return the link that two settings describe, or None if both are empty.

    Args:
        latency: Round-trip time, as in `20ms` or `0.1s`.
        bandwidth: Bandwidth, as in `200mbit` or `1gbit`, or `unlimited`.

    Raises:
        ValueError: If a text is neither.

    Example:
        >>> parse_link("20ms", "")
        Link(latency_s=0.02, bits_per_s=None)
    """
    if not latency and not bandwidth:
        return None
    return Link(parse_latency(latency or "0ms"), parse_bandwidth(bandwidth or UNLIMITED))


def parse_latency(text: str) -> float:
    """Return a round-trip time in seconds.

    Raises:
        ValueError: If the text isn't one.
    """
    match = _LATENCY.fullmatch(text.strip())
    seconds = float(match[1]) / (1000 if match[2].lower() == "ms" else 1) if match else -1.0
    if not 0 <= seconds <= MAX_LATENCY_SECONDS:
        raise ValueError(f"must be a time from 0ms to {MAX_LATENCY_SECONDS:g}s with its unit, as in 20ms")
    return seconds


def parse_bandwidth(text: str) -> int | None:
    """Return a bandwidth in bits per second; None is unlimited.

    Raises:
        ValueError: If the text isn't one.
    """
    if text.strip().lower() == UNLIMITED:
        return None
    match = _BANDWIDTH.fullmatch(text.strip())
    bits = round(float(match[1]) * _FACTORS[match[2].lower()]) if match else 0
    if not bits:
        raise ValueError("must be bits per second with their unit, as in 200mbit or 1gbit, or unlimited")
    return bits


def _validator(parse: Callable[[str], object]) -> Callable[[str], str]:
    """Return a function that returns a setting's text, and raises ValueError if `parse` does. It may be empty."""

    def validated(text: str) -> str:
        if text:
            parse(text)
        return text

    return validated


validated_latency = _validator(parse_latency)
validated_bandwidth = _validator(parse_bandwidth)


class Bandwidth:
    """One direction of a link: a token bucket that all connections share.

    Args:
        bits_per_s: Its rate; None is unlimited.
        clock: Returns the time in seconds.
    """

    def __init__(self, bits_per_s: int | None, clock: Callable[[], float]) -> None:
        self._seconds_per_byte = 8 / bits_per_s if bits_per_s else 0.0
        self._clock = clock
        self._free_at = -BURST_SECONDS

    def send(self, length: int) -> float:
        """Take up `length` bytes behind all earlier ones, and return the time at which the last one has left."""
        now = self._clock()
        self._free_at = max(self._free_at, now - BURST_SECONDS) + length * self._seconds_per_byte
        return max(self._free_at, now)


def require_plain_http(endpoint: str) -> None:
    """Raise ConfigurationError if a store can't be made distant."""
    if endpoint.startswith("http://"):
        return
    reason = (
        f"S3_ENDPOINT_URL={endpoint}: its certificate names the store, and clients refuse it from a proxy"
        if endpoint
        else "S3_ENDPOINT_URL is empty: there is no store, or it is AWS, which is distant already"
    )
    start = "" if endpoint else f"start a store on this machine with {StageRun('s3', 'up')}, "
    raise ConfigurationError(
        f"LARDER_LINK_LATENCY and LARDER_LINK_BANDWIDTH make a store distant, but {reason}",
        next_step=f"{start}set S3_ENDPOINT_URL to the http address of a store on this machine or network, or leave "
        "both empty",
    )
