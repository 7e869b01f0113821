"""The link before the embedded store: `--task up` with LARDER_S3_LATENCY and LARDER_S3_BANDWIDTH."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from larder.distant.find import find_link
from larder.distant.link import Link
from tests.conftest import Until, free_ports
from tests.integration.s3.test_up import Embedded, embedded, ended_process

__all__ = ["embedded"]
FAR = {"LARDER_S3_LATENCY": "20ms", "LARDER_S3_BANDWIDTH": "200mbit"}
FAR_LINK = Link(0.02, 200_000_000)


def link_pid(embedded: Embedded) -> int:
    return int((embedded.home / "link" / "pid").read_text())


def put(embedded: Embedded) -> None:
    embedded.client.put_object(Bucket="larder", Key="kept", Body=b"content")


def get(embedded: Embedded) -> bytes:
    return bytes(embedded.client.get_object(Bucket="larder", Key="kept")["Body"].read())


def test_a_link_comes_changes_and_goes_without_losing_objects(embedded: Embedded) -> None:
    assert embedded("up").code == 0
    put(embedded)
    endpoint = embedded.settings["S3_ENDPOINT_URL"]
    assert find_link(endpoint) is None

    ended = embedded("up", **FAR)
    assert ended.code == 0, ended.stderr
    assert f"{endpoint}, through a link of 20 ms and 200 Mbit/s, bucket larder" in ended.stderr
    assert find_link(endpoint) == FAR_LINK
    assert get(embedded) == b"content"
    store, link = embedded.pid, link_pid(embedded)

    ended = embedded("up", **FAR)
    assert "already runs" in ended.stderr
    assert (embedded.pid, link_pid(embedded)) == (store, link)

    assert embedded("up", LARDER_S3_LATENCY="5ms").code == 0
    assert find_link(endpoint) == Link(0.005, None)
    assert embedded.pid == store, "the store itself needs no restart"
    assert ended_process(link)
    assert get(embedded) == b"content"

    assert embedded("up").code == 0
    assert find_link(endpoint) is None
    assert get(embedded) == b"content"
    assert not (embedded.home / "link" / "pid").exists()


def test_each_request_takes_at_least_the_latency(embedded: Embedded) -> None:
    """How much more it takes depends on the machine, which may be busy."""
    assert embedded("up", LARDER_S3_LATENCY="50ms").code == 0
    put(embedded)
    client = embedded.client
    began = time.monotonic()
    for _ in range(4):
        assert client.get_object(Bucket="larder", Key="kept")["Body"].read() == b"content"
    assert time.monotonic() - began >= 4 * 0.05


def test_check_names_the_link(embedded: Embedded) -> None:
    assert embedded("up", **FAR).code == 0
    ended = embedded("check")
    assert ended.code == 0, ended.stdout
    assert "through a link of 20 ms and 200 Mbit/s" in ended.stdout
    assert embedded("up").code == 0
    assert "through" not in embedded("check").stdout


def test_down_ends_both(embedded: Embedded) -> None:
    assert embedded("up", **FAR).code == 0
    both = embedded.pid, link_pid(embedded)
    assert embedded("down").code == 0
    assert all(map(ended_process, both))
    assert embedded("up").code == 0
    assert find_link(embedded.settings["S3_ENDPOINT_URL"]) is None


@pytest.mark.parametrize("crashes", ["link", "store", "both"])
def test_up_repairs_what_has_crashed(embedded: Embedded, until: Until, crashes: str) -> None:
    assert embedded("up", **FAR).code == 0
    put(embedded)
    pids = {"link": [link_pid(embedded)], "store": [embedded.pid], "both": [link_pid(embedded), embedded.pid]}[crashes]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: all(map(ended_process, pids)), "they are gone")
    ended = embedded("up", **FAR)
    assert ended.code == 0, ended.stderr
    assert find_link(embedded.settings["S3_ENDPOINT_URL"]) == FAR_LINK
    assert get(embedded) == b"content"


def test_a_link_without_its_process_can_be_taken_away(embedded: Embedded, until: Until) -> None:
    assert embedded("up", **FAR).code == 0
    put(embedded)
    crashed = link_pid(embedded)
    os.kill(crashed, signal.SIGKILL)
    until(lambda: ended_process(crashed), "it is gone")
    ended = embedded("up")
    assert ended.code == 0, ended.stderr
    assert get(embedded) == b"content"


def test_another_address_is_named_also_behind_a_link(embedded: Embedded) -> None:
    assert embedded("up", **FAR).code == 0
    ended = embedded("up", **FAR, S3_ENDPOINT_URL=f"http://127.0.0.1:{free_ports(1)[0]}")
    assert ended.code == 2
    assert "another port" in ended.stderr
    assert find_link(embedded.settings["S3_ENDPOINT_URL"]) == FAR_LINK


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("LARDER_S3_LATENCY", "20", "as in 20ms"), ("LARDER_S3_BANDWIDTH", "fast", "as in 200mbit")],
)
def test_other_values_are_refused(embedded: Embedded, name: str, value: str, message: str) -> None:
    ended = embedded("up", **{name: value})
    assert ended.code == 2
    assert f"{name} (environment)='{value}'" in ended.stderr
    assert message in ended.stderr
    assert not Path(embedded.home / "pid").exists()
