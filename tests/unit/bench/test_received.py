"""Bytes received over time."""

from __future__ import annotations

import socket
import threading
import time
from itertools import pairwise
from typing import Any

import pytest

from larder.bench import received
from larder.bench.received import ReceivedSeries, interface_bytes
from larder.errors import ServiceError
from tests.waiting import wait_until


def area(record: dict[str, Any]) -> float:
    intervals = pairwise(record["t_s"])
    return sum(rate * (end - start) for rate, (start, end) in zip(record["bytes_per_s"], intervals, strict=True))


class Counted:
    """A counter that grows by 1,000 bytes each time it is read."""

    def __init__(self) -> None:
        self.values: list[int] = []

    def __call__(self) -> int:
        self.values.append(1000 * (len(self.values) + 1))
        return self.values[-1]


@pytest.fixture
def counter() -> Counted:
    return Counted()


def test_the_rates_between_samples_add_up_to_what_came(counter: Counted) -> None:
    with ReceivedSeries(counter, 0.01) as series:
        wait_until(lambda: len(counter.values) >= 10, "ten samples were taken")
    record = series.as_record()
    times, rates = record["t_s"], record["bytes_per_s"]
    assert len(times) == len(rates) + 1 >= 9
    assert times[0] == 0
    assert times == sorted(times)
    assert area(record) == pytest.approx(counter.values[-1] - counter.values[0], abs=100), "every interval counts"
    assert all(rate > 0 for rate in rates)


def test_a_block_shorter_than_an_interval_has_one_rate() -> None:
    counter = iter((0, 5000))
    with ReceivedSeries(lambda: next(counter), 60.0) as series:
        time.sleep(0.05)
    record = series.as_record()
    assert len(record["bytes_per_s"]) == 1
    assert area(record) == pytest.approx(5000, abs=1)


def test_without_samples_there_are_no_rates() -> None:
    def read() -> int:
        raise ServiceError("no answer", next_step="wait")

    with ReceivedSeries(read) as series:
        pass
    assert series.as_record() == {"t_s": [], "bytes_per_s": []}


def test_a_long_pass_has_no_longer_series(monkeypatch: pytest.MonkeyPatch, counter: Counted) -> None:
    monkeypatch.setattr(received, "MAX_SAMPLES", 10)
    with ReceivedSeries(counter, 0.002) as series:
        wait_until(lambda: len(counter.values) > 40, "40 samples were taken")
    record = series.as_record()
    assert 4 <= len(record["t_s"]) <= 10
    assert area(record) == pytest.approx(counter.values[-1] - counter.values[0], abs=100), "all of the pass is covered"


def test_a_counter_that_fails_in_between_only_widens_an_interval() -> None:
    calls = []

    def read() -> int:
        calls.append(1)
        if len(calls) == 2:
            raise ServiceError("no answer", next_step="wait")
        return len(calls) * 100

    with ReceivedSeries(read, 0.02) as series:
        time.sleep(0.1)
    record = series.as_record()
    assert len(record["t_s"]) in (len(calls) - 1, len(calls) - 2)
    assert area(record) == pytest.approx(len(calls) * 100 - 100, abs=1)


def test_what_comes_over_loopback_is_counted() -> None:
    before = interface_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = threading.Thread(target=lambda: server.accept()[0].sendall(bytes(3_000_000)))
        sender.start()
        with socket.create_connection(server.getsockname()) as client:
            left = 3_000_000
            while left:
                left -= len(client.recv(1 << 16))
        sender.join()
    assert interface_bytes() - before >= 3_000_000
