"""A missing store is found before an image is built for a command that needs it."""

from __future__ import annotations

import pytest

from larder.bench.arms import ARMS, IN_BUCKET
from larder.cli import store_check
from larder.cli.local_store import CONTAINER_ENDPOINT
from tests.conftest import free_ports
from tests.unit.cli.conftest import Ended, FrontDoor

KEYS = {"S3_BUCKET": "photos", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
LINK = "LARDER_LINK_LATENCY=40ms"


def is_built(ended: Ended) -> bool:
    return any("build" in call["argv"] for call in ended.stages)


@pytest.mark.parametrize(
    ("words", "need"),
    [
        (("compare", LINK), "LARDER_LINK_LATENCY"),
        (("compare", "LARDER_LINK_BANDWIDTH=100mbit"), "LARDER_LINK_BANDWIDTH"),
        (("compare", "s3://bucket/shards"), "LARDER_SHARDS"),
        (("bench", "ARM=stream"), "ARM=stream"),
        (("train", "--arm", "webdataset"), "ARM=webdataset"),
    ],
    ids=["latency", "bandwidth", "shards", "bench", "train"],
)
def test_what_needs_a_store_names_the_command_that_starts_one(
    door: FrontDoor, words: tuple[str, ...], need: str
) -> None:
    ended = door.run(*words, "RUNNER=compose")
    assert ended.code == 2
    assert f"error: {need} needs a store, and none is set\n" in ended.err
    assert "`python3 -m larder s3-up RUNNER=compose` starts one on this machine" in ended.err
    assert not is_built(ended)


def test_what_needs_no_store_is_built_without_one(door: FrontDoor) -> None:
    for words in (("compare",), ("compare", "shards"), ("bench", "ARM=imagefolder_local")):
        ended = door.run(*words, "RUNNER=compose")
        assert ended.code == 0, ended.err
        assert is_built(ended)


def test_a_store_on_this_machine_must_run(door: FrontDoor) -> None:
    store = {**KEYS, "S3_ENDPOINT_URL": CONTAINER_ENDPOINT}
    ended = door.run("bench", "ARM=stream", "RUNNER=compose", **store)
    assert ended.code == 5
    assert "the store on this machine isn't running\n  next step: start it: `python3 -m larder s3-up" in ended.err
    assert not is_built(ended)
    door.answer("--filter", "label=com.docker.compose.service=minio", out="0123456789ab\n")
    assert is_built(door.run("bench", "ARM=stream", "RUNNER=compose", **store))


def test_another_store_must_answer(door: FrontDoor) -> None:
    [port] = free_ports(1)
    ended = door.run("compare", LINK, "RUNNER=host", S3_ENDPOINT_URL=f"http://127.0.0.1:{port}", **KEYS)
    assert ended.code == 5
    assert f"nothing answers at the store's address, 127.0.0.1 port {port}: Connection refused" in ended.err
    assert not ended.stages


def test_the_host_runner_looks_for_the_containers_store_at_its_port(door: FrontDoor) -> None:
    [port] = free_ports(1)
    assert door.run("s3-up", "RUNNER=compose", f"LARDER_MINIO_PORT={port}").code == 0
    ended = door.run("bench", "ARM=stream", "RUNNER=host")
    assert f"nothing answers at the store's address, 127.0.0.1 port {port}" in ended.err


def test_a_container_may_reach_what_this_machine_doesnt(door: FrontDoor) -> None:
    [port] = free_ports(1)
    store = {**KEYS, "S3_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    assert is_built(door.run("compare", LINK, "RUNNER=compose", **store))


def test_a_link_needs_a_store_with_http(door: FrontDoor) -> None:
    ended = door.run("compare", LINK, "RUNNER=compose", S3_ENDPOINT_URL="https://store.example", **KEYS)
    assert ended.code == 2
    assert "its certificate names the store" in ended.err
    assert not is_built(ended)


def test_a_bucket_must_be_set(door: FrontDoor) -> None:
    ended = door.run("bench", "ARM=stream", "RUNNER=compose", S3_ENDPOINT_URL="http://127.0.0.1:1")
    assert ended.code == 2
    assert "ARM=stream reads from a bucket, and S3_BUCKET is not set" in ended.err


def test_an_unknown_arm_of_a_comparison_is_found_before_the_build(door: FrontDoor) -> None:
    ended = door.run("compare", "LARDER_ARMS=streem,webdataset", "RUNNER=compose")
    assert ended.code == 2
    assert "LARDER_ARMS=streem is unknown; did you mean stream?" in ended.err
    assert not is_built(ended)


def test_the_arms_that_need_no_bucket_are_those_of_the_table() -> None:
    assert set(store_check._READ_NO_BUCKET) == {name for name, arm in ARMS.items() if arm.layout not in IN_BUCKET}
