"""Links: their texts, and when bytes come out."""

from __future__ import annotations

import pytest

from larder.distant.link import BURST_SECONDS, Bandwidth, Link, join_links, parse_link, require_plain_http
from larder.errors import ConfigurationError


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.mark.parametrize(
    ("latency", "bandwidth", "link"),
    [
        ("20ms", "200mbit", Link(0.02, 200_000_000)),
        ("0.5s", "", Link(0.5, None)),
        ("", "1.5 Gbit/s", Link(0.0, 1_500_000_000)),
        ("0ms", "unlimited", Link(0.0, None)),
        ("1.5 MS", "64kbit", Link(0.0015, 64_000)),
    ],
)
def test_links_are_parsed(latency: str, bandwidth: str, link: Link) -> None:
    assert parse_link(latency, bandwidth) == link


def test_without_settings_there_is_no_link() -> None:
    assert parse_link("", "") is None


@pytest.mark.parametrize(
    ("latency", "bandwidth", "message"),
    [("20", "", "as in 20ms"), ("-5ms", "", "as in 20ms"), ("11s", "", "0ms to 10s"), ("far", "", "as in 20ms"),
     ("", "200", "as in 200mbit"), ("", "0mbit", "as in 200mbit"), ("", "25MB/s", "as in 200mbit")],
)  # fmt: skip
def test_other_texts_are_refused(latency: str, bandwidth: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_link(latency, bandwidth)


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (Link(0.02, 200_000_000), "a link of 20 ms and 200 Mbit/s"),
        (Link(0.0005, None), "a link of 0.5 ms"),
        (Link(0.0, 1_500_000), "a link of 0 ms and 1.5 Mbit/s"),
    ],
)
def test_a_link_in_words(link: Link, words: str) -> None:
    assert link.describe() == words


def test_links_one_behind_the_other() -> None:
    assert join_links(None, None) is None
    assert join_links(None, Link(0.0, None)) == Link(0.0, None)
    assert join_links(Link(0.02, 500), Link(0.01, None), Link(0.0, 700)) == Link(0.03, 500)


def test_bytes_queue_behind_each_other() -> None:
    """8,000 bit/s are 1,000 bytes a second; the first ones use up what an idle link has saved."""
    clock = Clock()
    link = Bandwidth(8_000, clock)
    assert link.send(1000) == pytest.approx(1 - BURST_SECONDS)
    assert link.send(500) == pytest.approx(1.5 - BURST_SECONDS)
    clock.time = 10.0
    assert link.send(1000) == pytest.approx(11 - BURST_SECONDS)


def test_an_idle_link_saves_up_no_more_than_a_burst() -> None:
    clock = Clock()
    link = Bandwidth(8_000_000, clock)
    clock.time = 3600.0
    assert link.send(1_000_000) == pytest.approx(3601 - BURST_SECONDS)


def test_late_timers_lose_no_bandwidth() -> None:
    clock, sent = Clock(), 0
    link = Bandwidth(80_000_000, clock)
    while clock.time < 10:
        sent += 20_000
        clock.time = link.send(20_000) + 0.001  # a millisecond late each time
    assert sent / clock.time == pytest.approx(10e6, rel=0.01)


def test_without_a_limit_bytes_leave_at_once() -> None:
    clock = Clock()
    clock.time = 5.0
    assert Bandwidth(None, clock).send(1 << 40) == 5.0


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [("https://store:9000", "its certificate names the store"), ("", "it is AWS, which is distant already")],
)
def test_stores_with_tls_are_refused(endpoint: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        require_plain_http(endpoint)
    assert "leave both empty" in caught.value.next_step
