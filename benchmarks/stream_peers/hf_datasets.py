"""Hugging Face datasets, as its documentation runs it: streaming Parquet, shuffle, map, and PyTorch's DataLoader."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import s3fs  # type: ignore[import-untyped]
from datasets import Features, Image, Value, load_dataset
from torch.utils.data import DataLoader

from benchmarks.stream_peers.contestant import Given, run
from benchmarks.stream_peers.recipes import recipe


def batches(given: Given) -> Generator[int, None, None]:
    """Read an epoch. The first step opens the data."""
    how = recipe(given.recipe)
    options = {"endpoint_url": os.environ["S3_ENDPOINT_URL"]}
    files = [f"s3://{path}" for path in s3fs.S3FileSystem(**options).glob(f"{given.uri}/*.parquet")]
    dataset = load_dataset(
        "parquet",
        data_files=files,
        split="train",
        streaming=True,
        features=Features({"image": Image(decode=False), "label": Value("int64")}),
        storage_options=options,
    )

    def load(sample: dict[str, Any]) -> dict[str, Any]:
        return {"image": how.transform(sample["image"]["bytes"]), "label": sample["label"]}

    loader = DataLoader(
        dataset.shuffle(seed=0, buffer_size=1000).map(load, features=None),
        batch_size=given.batch_size,
        num_workers=given.workers,
    )
    yield 0
    for batch in loader:
        yield len(batch["label"])


if __name__ == "__main__":
    run(batches)
