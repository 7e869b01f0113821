"""Training steps on an arm's batches: how busy the device is, and how long steps take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from larder.bench.comparison import steps
from larder.bench.comparison.steps import WARM_UP_STEPS, Trainer, measure_steps
from larder.errors import ConfigurationError

BATCH = torch.rand(4, 3, 224, 224), torch.tensor([0, 1, 2, 0])


class CountedTrainer(Trainer):
    """Takes a second for each step; the clock stands still otherwise, unless a batch moves it on."""

    def __init__(self) -> None:
        super().__init__("cpu", 3)
        self.time, self.made, self.awaited = 0.0, 0, list[float]()

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.time += 1.0
        self.made += 1

    def mark(self) -> float:
        return self.time

    def wait_for(self, mark: Any) -> None:
        self.awaited.append(mark)


def late(trainer: CountedTrainer, batches: int, waits: dict[int, float]) -> Iterator[Any]:
    """Yield batches, of which some come late."""
    for number in range(batches):
        trainer.time += waits.get(number, 0.0)
        yield BATCH


def test_a_loader_that_is_in_time_keeps_the_device_busy() -> None:
    trainer = CountedTrainer()
    found = measure_steps(late(trainer, 10, {0: 7.0, 1: 3.0}), trainer)
    assert (found.steps, found.busy_share, found.imgs_per_s) == (7, 1.0, 4.0)
    assert found.step_p99_s == found.synthetic_step_p99_s == 1.0


def test_waiting_for_data_makes_steps_longer_and_the_device_idle() -> None:
    """Seven steps are counted; two of them wait for half a second and for two seconds."""
    trainer = CountedTrainer()
    found = measure_steps(late(trainer, 10, {5: 0.5, 8: 2.0}), trainer)
    assert found.busy_share == round(7 / 9.5, 4)
    assert found.imgs_per_s == pytest.approx(28 / 9.5, rel=1e-4)
    assert (found.step_p50_s, found.step_p99_s) == (1.0, 3.0)
    assert found.synthetic_step_p99_s == 1.0


def test_of_few_batches_fewer_steps_are_left_out() -> None:
    trainer = CountedTrainer()
    assert measure_steps(late(trainer, 3, {}), trainer).steps == 2


def test_the_program_runs_ahead_of_the_device_by_two_steps_only() -> None:
    trainer = CountedTrainer()
    measure_steps(late(trainer, 10, {}), trainer)
    assert trainer.awaited[:8] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]


def test_synthetic_steps_end_when_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SYNTHETIC_SECONDS", -1.0)
    trainer = CountedTrainer()
    measure_steps(late(trainer, 5, {}), trainer)
    assert trainer.made == 5 + WARM_UP_STEPS + steps.MIN_STEPS


def test_the_network_learns_on_a_cpu() -> None:
    trainer = Trainer("cpu", 3)
    before = [weight.detach().clone() for weight in trainer._network.parameters()]
    found = measure_steps((BATCH for _ in range(5)), trainer)
    assert found.device == "cpu"
    assert found.steps == 2
    assert 0 < found.busy_share <= 1
    assert any(not torch.equal(old, new) for old, new in zip(before, trainer._network.parameters(), strict=True))


def test_without_a_gpu_it_says_so_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match="device='cuda': torch sees no CUDA device") as refused:
        Trainer("cuda", 3)
    assert "\n" not in refused.value.what
