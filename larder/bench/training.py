"""Trains a small network through a loader: what a training has of it, in accuracy and in time spent waiting for data.

The network averages 4 x 4 pixels, then has three strided convolutions, global average pooling and one linear layer:
small enough for a CPU, so that feeding it, and not computing, is what differs between loaders. It is trained by Adam.
"""

from __future__ import annotations

import itertools
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from larder.errors import ConfigurationError
from larder.loaders.loader import Loader
from larder.progress import Reporter
from larder.terminal import Lines, lines

if TYPE_CHECKING:
    from torch import nn

CHANNELS = (3, 32, 64, 128)
LEARNING_RATE = 2e-3


class Epoch(NamedTuple):
    """One epoch of training."""

    seconds: float
    waiting_seconds: float
    """From asking for a batch to having it."""
    images: int
    loss: float
    """Mean cross-entropy over the epoch's images."""


class Training:
    """The network for so many classes, on the device that it is trained on: "auto", "cpu" or "cuda"."""

    def __init__(self, classes: int, *, seed: int, device: str) -> None:
        import torch

        torch.manual_seed(seed)
        self.device = _device(device)
        self._network = small_network(classes).to(self.device)
        self._optimizer = torch.optim.Adam(self._network.parameters(), LEARNING_RATE)

    def train(self, loader: Loader, number: int, reporter: Reporter) -> Epoch:
        """One epoch. Waiting is what lies between asking for a batch and having it, as in bench."""
        import torch

        waiting, images, loss_sum = 0.0, 0, 0.0
        self._network.train()
        start = perf_counter()
        with reporter.task(f"epoch {number}", loader.images, "images") as task:
            batches = loader.read(number)
            asked = perf_counter()
            while (batch := next(batches, None)) is not None:
                waiting += perf_counter() - asked
                pictures, labels = (part.to(self.device) for part in batch)
                loss = torch.nn.functional.cross_entropy(self._network(pictures), labels)
                self._optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimizer.step()
                loss_sum, images = loss_sum + loss.item() * len(labels), images + len(labels)
                task.advance(len(labels))
                asked = perf_counter()
            waiting += perf_counter() - asked
        return Epoch(perf_counter() - start, waiting, images, loss_sum / images)

    def accuracy(self, loader: Loader, reporter: Reporter) -> float:
        """The share of a split's images whose class the network gives."""
        import torch

        right = 0
        self._network.eval()
        with torch.no_grad(), reporter.task("scoring", loader.images, "images") as task:
            for batch in loader.read(0):
                pictures, labels = (part.to(self.device) for part in batch)
                right += int((self._network(pictures).argmax(1) == labels).sum())
                task.advance(len(labels))
        return right / loader.images


def small_network(classes: int) -> nn.Module:
    """From float32 [B, 3, 224, 224] to logits [B, classes]."""
    from torch import nn

    layers: list[nn.Module] = [nn.AvgPool2d(4)]  # 56 x 56: what makes the classes apart is coarse
    for before, after in itertools.pairwise(CHANNELS):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS[-1], classes))


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            "device='cuda': torch sees no CUDA device",
            next_step="hand a GPU to the container and take a CUDA build of torch, or set `device` to auto",
        )
    return wanted


def make_record(arm: str, epochs: list[Epoch], accuracy: float, device: str) -> dict[str, Any]:
    """What came out, as JSON's types: services/bench/README.md says what each key means."""
    seconds, waiting = sum(one.seconds for one in epochs), sum(one.waiting_seconds for one in epochs)
    return {
        "arm": arm,
        "kind": "train",
        "accuracy": round(accuracy, 4),
        "wait_share": round(waiting / seconds, 4),
        "imgs/s": round(sum(one.images for one in epochs) / seconds, 2),
        "device": device,
        "epochs": [
            {"seconds": round(one.seconds, 3), "waiting_seconds": round(one.waiting_seconds, 3), "images": one.images,
             "loss": round(one.loss, 4)}
            for one in epochs
        ],
    }  # fmt: skip


def render(record: dict[str, Any]) -> Lines:
    """The record as people read it; no newline at the end."""
    rows = [f"{record['arm']} on {record['device']}", "epoch  imgs/s   waiting  loss"]
    for number, one in enumerate(record["epochs"], start=1):
        rate, share = one["images"] / one["seconds"], one["waiting_seconds"] / one["seconds"]
        rows.append(f"{number:>5}  {rate:>6,.0f}  {share:>7.0%}  {one['loss']:.3f}")
    held_out = record["settings"]["held_out"]
    return lines(*rows, f"accuracy on {held_out}: {record['accuracy']:.1%}")
