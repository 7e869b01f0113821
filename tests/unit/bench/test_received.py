import socket
import threading
import time

import pytest

from larder.errors import ServiceError
from services.bench import received
from services.bench.received import ReceivedSeries, interface_bytes


def test_the_rates_between_samples_add_up_to_what_came():
    counter = iter(range(1000, 10**9, 1000))
    with ReceivedSeries(lambda: next(counter), 0.01) as series:
        time.sleep(0.2)
    record = series.as_record()
    times, rates = record["t_s"], record["bytes_per_s"]
    assert len(times) == len(rates) >= 8
    assert times == sorted(times)
    assert all(0 < rate <= 210_000 for rate in rates), "a thousand bytes in each 5 ms or more"


def test_a_long_pass_has_no_longer_series(monkeypatch):
    monkeypatch.setattr(received, "MOST_SAMPLES", 10)
    with ReceivedSeries(lambda: int(time.perf_counter() * 1e6), 0.002) as series:
        time.sleep(0.3)
    record = series.as_record()
    assert 3 <= len(record["t_s"]) <= 10
    assert record["bytes_per_s"] == pytest.approx([1e6] * len(record["t_s"]), rel=0.2)
    assert record["t_s"][-1] > 0.1, "all of the pass is covered"


def test_a_counter_that_fails_in_between_only_widens_an_interval():
    calls = []

    def read():
        calls.append(1)
        if len(calls) == 2:
            raise ServiceError("no answer", next_step="wait")
        return len(calls) * 100

    with ReceivedSeries(read, 0.02) as series:
        time.sleep(0.1)
    assert len(series.as_record()["t_s"]) in (len(calls) - 2, len(calls) - 3)


def test_what_comes_over_loopback_is_counted():
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
