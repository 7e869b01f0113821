"""Ray Data, as its documentation runs it on images: read_images, map and iter_torch_batches, on one machine."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any
from urllib.parse import urlsplit

import ray
from PIL import Image
from pyarrow.fs import S3FileSystem

from benchmarks.stream_peers.contestant import Given, run
from benchmarks.stream_peers.recipes import MEAN, STD


def batches(given: Given) -> Generator[int, None, None]:
    """Read an epoch. The first step starts the cluster."""
    place = urlsplit(os.environ["S3_ENDPOINT_URL"])
    store = S3FileSystem(endpoint_override=place.netloc, scheme=place.scheme, region="us-east-1")
    ray.init(address="local", num_cpus=given.workers, include_dashboard=False, log_to_driver=False)
    yield 0
    dataset = ray.data.read_images(given.uri.removeprefix("s3://"), filesystem=store, mode="RGB", shuffle="files")
    for batch in dataset.map(_transform).iter_torch_batches(batch_size=given.batch_size):
        yield len(batch["image"])
    yield 0  # the clock stops before the cluster ends
    ray.shutdown()


def _transform(row: dict[str, Any]) -> dict[str, Any]:
    from torchvision import transforms

    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return {"image": transforms.Compose(steps)(Image.fromarray(row["image"])).numpy()}


if __name__ == "__main__":
    run(batches, split_start=True)
