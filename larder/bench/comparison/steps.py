"""Train a model on an arm's batches: how busy is the device, and how long do its steps take?

A step's time goes from the end of the step before to its own end, so it includes waiting for data. The same steps on a
batch that is already there tell what the device could reach. On CUDA, events on the device measure both: nothing waits
for the device but for what must not run further ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise, repeat
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from larder.bench.comparison_parts import StepsRecord
from larder.bench.measure import percentile
from larder.bench.training import choose_device, small_network

if TYPE_CHECKING:
    import torch
    from torch import nn

    from larder.loaders.loader import Batch

WARM_UP_STEPS = 3
"""First steps, which choose algorithms and allocate memory; they aren't counted. Of few steps, fewer."""
MIN_BATCHES = 3
SYNTHETIC_STEPS = 50
SYNTHETIC_SECONDS = 5.0
"""Time for steps on one batch; at least MIN_STEPS are made."""
MIN_STEPS = 3
_AHEAD = 2
"""Steps that the program may be ahead of the device."""
_LEARNING_RATE = 1e-3


class Marks(NamedTuple):
    """When a step began and ended on the device: times, or CUDA's events."""

    began: Any
    ended: Any


class StepTimes(NamedTuple):
    """Figures of a number of steps."""

    seconds: float
    """From the end of the last step that isn't counted to the end of the last one."""
    busy_seconds: float
    """Time in which the device computed steps."""
    durations: list[float]
    """Of each step, with the wait before it."""


class Trainer:
    """A model and its optimizer on a device: ResNet-50 on CUDA, the network of `larder train` on a CPU.

    Args:
        device: `cuda` or `cpu`.
        classes: Number of classes.

    Raises:
        ConfigurationError: If the device isn't there.
    """

    def __init__(self, device: str, classes: int) -> None:
        import torch

        self.device = torch.device(choose_device(device))
        torch.manual_seed(0)
        if self.device.type == "cuda":
            from torchvision.models import resnet50

            self.model = "ResNet-50, bfloat16, channels last"
            network: nn.Module = resnet50(num_classes=classes).to(memory_format=torch.channels_last)
        else:
            self.model, network = "larder's small network, float32", small_network(classes)
        self._network = network.to(self.device).train()
        self._optimizer = torch.optim.SGD(self._network.parameters(), _LEARNING_RATE, momentum=0.9)

    @property
    def device_name(self) -> str:
        """The device, with the name of the GPU."""
        import torch

        return f"cuda: {torch.cuda.get_device_name()}" if self.device.type == "cuda" else self.device.type

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Make one step, without waiting for its end."""
        import torch

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = torch.nn.functional.cross_entropy(self._network(images), labels)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def mark(self) -> Any:
        """Return a mark of the moment at which the device gets here."""
        if self.device.type != "cuda":
            return perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, earlier: Any, later: Any) -> float:
        """Return the time between two marks that the device has passed."""
        return float(earlier.elapsed_time(later)) / 1000 if self.device.type == "cuda" else later - earlier

    def wait_for(self, mark: Any) -> None:
        """Wait until the device has passed a mark."""
        if self.device.type == "cuda":
            mark.synchronize()


def measure_steps(batches: Iterable[Batch], trainer: Trainer) -> StepsRecord:
    """Train on all batches, and then on one of them again and again.

    Args:
        batches: At least MIN_BATCHES batches.
        trainer: The model.
    """
    first: list[Batch] = []

    def seen() -> Iterator[Batch]:
        for batch in batches:
            if not first:
                first.append(tuple(part.clone() for part in batch))  # type: ignore[arg-type]
            yield batch

    trained, images = _time_steps(_on_device(seen(), trainer), trainer)
    synthetic, _ = _time_steps(_limited(repeat(next(_on_device(iter(first), trainer)))), trainer)
    return StepsRecord(
        device=trainer.device_name,
        model=trainer.model,
        steps=len(trained.durations),
        imgs_per_s=_round(images / trained.seconds),
        busy_share=round(min(trained.busy_seconds / trained.seconds, 1.0), 4),
        step_p50_s=_round(percentile(trained.durations, 50)),
        step_p99_s=_round(percentile(trained.durations, 99)),
        synthetic_step_p50_s=_round(percentile(synthetic.durations, 50)),
        synthetic_step_p99_s=_round(percentile(synthetic.durations, 99)),
    )


def _time_steps(batches: Iterable[Batch], trainer: Trainer) -> tuple[StepTimes, int]:
    """Make a step with each batch. Return the times without the warm-up, and the images of these steps."""
    marks: list[Marks] = []
    counts: list[int] = []
    running: deque[Any] = deque()
    for images, labels in batches:
        if len(running) == _AHEAD:
            trainer.wait_for(running.popleft())
        began = trainer.mark()
        trainer.step(images, labels)
        ended = trainer.mark()
        marks.append(Marks(began, ended))
        counts.append(len(labels))
        running.append(ended)
    trainer.wait_for(marks[-1].ended)
    warm_up = max(min(WARM_UP_STEPS, len(marks) - 2), 1)
    steps = [
        (trainer.seconds(before.ended, step.ended), trainer.seconds(step.began, step.ended))
        for before, step in pairwise(marks[warm_up - 1 :])
    ]
    durations = [duration for duration, _ in steps]
    times = StepTimes(max(sum(durations), 1e-9), sum(busy for _, busy in steps), durations)
    return times, sum(counts[warm_up:])


def _limited(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield batches until there are enough, or the time is over."""
    began = perf_counter()
    for number, batch in enumerate(islice(batches, WARM_UP_STEPS + SYNTHETIC_STEPS)):
        if number >= WARM_UP_STEPS + MIN_STEPS and perf_counter() - began > SYNTHETIC_SECONDS:
            return
        yield batch


def _on_device(batches: Iterable[Batch], trainer: Trainer) -> Iterator[Batch]:
    """Yield batches on the device. On CUDA they are copied from pinned memory while the steps before them compute."""
    if trainer.device.type != "cuda":
        yield from batches
        return
    import torch

    copying = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    for images, labels in batches:
        pinned = images.pin_memory(), labels.pin_memory()
        with torch.cuda.stream(copying):
            there, classes = (part.to(trainer.device, non_blocking=True) for part in pinned)
            there = there.contiguous(memory_format=torch.channels_last)
        computing = torch.cuda.current_stream()
        computing.wait_stream(copying)
        for part in (there, classes):
            part.record_stream(computing)  # its memory isn't used again before the step has ended
        yield there, classes


def _round(number: float) -> float:
    return float(f"{number:.5g}")
