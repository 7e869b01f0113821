"""Train a small network through a loader; measure accuracy and the time spent waiting for data.

The network averages 4 x 4 pixels, then applies three strided convolutions, global average pooling and a linear layer.
It is small enough for a CPU, so that loaders differ by loading, not by computing. The optimizer is Adam.
"""

from __future__ import annotations

import itertools
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from larder.bench.run_record import CONDITION_FIELDS, RecordField
from larder.distant.link import recorded_link
from larder.errors import ConfigurationError
from larder.loaders.loader import Loader
from larder.progress import Reporter
from larder.terminal import Lines, join_lines

if TYPE_CHECKING:
    from torch import nn

CHANNELS = (3, 32, 64, 128)
LEARNING_RATE = 2e-3
TRAINING_FIELDS = {
    "arm": RecordField("", "the arm that gave the images"),
    "kind": RecordField("", "`train`"),
    "accuracy": RecordField("", "share of the held-out images that the network classifies correctly"),
    "wait_share": RecordField("", "time from requesting to receiving batches, over the duration of all epochs"),
    "imgs/s": RecordField("images/s", "images of all epochs over their duration"),
    "device": RecordField("", "`cpu` or `cuda`"),
    "epochs": RecordField(
        "s, images", "of each epoch: `seconds`, `waiting_seconds`, `images`, and `loss`, the mean cross-entropy"
    ),
    **CONDITION_FIELDS,
}
"""The keys of a training's record, in order."""


class Epoch(NamedTuple):
    """One epoch of training."""

    seconds: float
    waiting_seconds: float
    """Total time from requesting a batch to receiving it."""
    images: int
    loss: float
    """Mean cross-entropy over the epoch's images."""


class Training:
    """A network for `classes` classes and its optimizer. `device` is "auto", "cpu" or "cuda"."""

    def __init__(self, classes: int, *, seed: int, device: str) -> None:
        import torch

        torch.manual_seed(seed)
        self.device = choose_device(device)
        self._network = small_network(classes).to(self.device)
        self._optimizer = torch.optim.Adam(self._network.parameters(), LEARNING_RATE)

    def train(self, loader: Loader, number: int, reporter: Reporter) -> Epoch:
        """Train one epoch. The waiting time is measured as in bench, from requesting a batch to receiving it."""
        import torch

        waiting, images, loss_sum = 0.0, 0, 0.0
        self._network.train()
        start = perf_counter()
        with reporter.task(f"epoch {number}", loader.images, "images") as task:
            batches = loader.read(number)
            requested_at = perf_counter()
            while (batch := next(batches, None)) is not None:
                waiting += perf_counter() - requested_at
                pictures, labels = (part.to(self.device) for part in batch)
                loss = torch.nn.functional.cross_entropy(self._network(pictures), labels)
                self._optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimizer.step()
                loss_sum, images = loss_sum + loss.item() * len(labels), images + len(labels)
                task.advance(len(labels))
                requested_at = perf_counter()
            waiting += perf_counter() - requested_at
        return Epoch(perf_counter() - start, waiting, images, loss_sum / images)

    def accuracy(self, loader: Loader, reporter: Reporter) -> float:
        """Return the share of a split's images that the network classifies correctly."""
        import torch

        correct = 0
        self._network.eval()
        with torch.no_grad(), reporter.task("scoring", loader.images, "images") as task:
            for batch in loader.read(0):
                pictures, labels = (part.to(self.device) for part in batch)
                correct += int((self._network(pictures).argmax(1) == labels).sum())
                task.advance(len(labels))
        return correct / loader.images


def small_network(classes: int) -> nn.Module:
    """Return a network from float32 [B, 3, 224, 224] to logits [B, classes]."""
    from torch import nn

    layers: list[nn.Module] = [nn.AvgPool2d(4)]  # 56 x 56: coarse features suffice to separate the classes
    for inputs, outputs in itertools.pairwise(CHANNELS):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS[-1], classes))


def choose_device(requested: str) -> str:
    """Return the device to compute on, for `auto`, `cpu` or `cuda`.

    Raises:
        ConfigurationError: If torch sees no CUDA device.
    """
    import torch

    if requested == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if requested == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            "device='cuda': torch sees no CUDA device",
            next_step="give the container a GPU and install a CUDA build of torch, or set `device` to auto",
        )
    return requested


def make_training_record(arm: str, epochs: list[Epoch], accuracy: float, device: str) -> dict[str, Any]:
    """Return the result as JSON types; see TRAINING_FIELDS."""
    seconds, waiting = sum(epoch.seconds for epoch in epochs), sum(epoch.waiting_seconds for epoch in epochs)
    return {
        "arm": arm,
        "kind": "train",
        "accuracy": round(accuracy, 4),
        "wait_share": round(waiting / seconds, 4),
        "imgs/s": round(sum(epoch.images for epoch in epochs) / seconds, 2),
        "device": device,
        "epochs": [
            {
                "seconds": round(epoch.seconds, 3),
                "waiting_seconds": round(epoch.waiting_seconds, 3),
                "images": epoch.images,
                "loss": round(epoch.loss, 4),
            }
            for epoch in epochs
        ],
    }


def render_training(record: dict[str, Any]) -> Lines:
    """Render the record of a training as text, without a trailing newline."""
    rows = [f"{record['arm']} on {record['device']}", "epoch  imgs/s   waiting  loss"]
    for number, epoch in enumerate(record["epochs"], start=1):
        rate, share = epoch["images"] / epoch["seconds"], epoch["waiting_seconds"] / epoch["seconds"]
        rows.append(f"{number:>5}  {rate:>6,.0f}  {share:>7.0%}  {epoch['loss']:.3f}")
    held_out = record["settings"]["held_out"]
    link = recorded_link(record["provenance"])
    store = [f"store {record['settings']['s3_endpoint_url']}, through {link.describe()}"] if link else []
    return join_lines(*rows, f"accuracy on {held_out}: {record['accuracy']:.1%}", *store)
