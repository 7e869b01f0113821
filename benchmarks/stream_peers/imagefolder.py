"""torchvision's ImageFolder and PyTorch's DataLoader, as in PyTorch's ImageNet example."""

from __future__ import annotations

from collections.abc import Generator

from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.stream_peers.contestant import Given, run
from benchmarks.stream_peers.recipes import MEAN, STD


def batches(given: Given) -> Generator[int, None, None]:
    """Read an epoch. The first step opens the data."""
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    dataset = ImageFolder(given.uri, transforms.Compose(steps))
    loader = DataLoader(dataset, given.batch_size, shuffle=True, num_workers=given.workers)
    yield 0
    for _, labels in loader:
        yield len(labels)


if __name__ == "__main__":
    run(batches)
