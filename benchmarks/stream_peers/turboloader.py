"""TurboLoader's fast path, as its documentation runs it: a DataLoader on one local tar file.

Its fast path can't crop: it squashes the whole image to 224 x 224 pixels, so its work is less than a resize to 256.
Batches are float32 and have no labels. The variant `antialias` resizes as torchvision does; the default samples single
pixels. It uses all cores that it may.
"""

from __future__ import annotations

from collections.abc import Generator

import turboloader

from benchmarks.stream_peers.contestant import Given, run


def batches(given: Given) -> Generator[int, None, None]:
    """Read an epoch. The first step opens the data."""
    loader = turboloader.DataLoader(
        given.uri,
        batch_size=given.batch_size,
        num_workers=given.workers,
        image_size=224,
        output_format="pytorch",
        transform=turboloader.ImageNetNormalize(),
        shuffle=True,
        antialias=given.variant == "antialias",
    )
    yield 0
    for images, _ in loader:
        yield len(images)


if __name__ == "__main__":
    run(batches)
