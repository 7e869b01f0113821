"""The number of workers that pack."""

from __future__ import annotations

import pytest

from larder.machine import available_cpus
from larder.packing.settings import PackSettings


@pytest.mark.parametrize(
    ("environ", "processes"),
    [
        ({}, available_cpus()),
        ({"LARDER_DEST": "s3://bucket/name"}, available_cpus() + 1),
        ({"LARDER_DEST": "s3://bucket/name", "LARDER_WORKERS": "3"}, 3),
    ],
    ids=["volume", "store", "as set"],
)
def test_workers_that_send_to_a_store_are_one_more(environ: dict[str, str], processes: int) -> None:
    assert PackSettings.load("shard", [], environ).processes == processes
