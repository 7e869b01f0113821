"""Compute how busy an arm keeps accelerators, as MLPerf Storage defines utilization, but with decoding.

Utilization is an accelerator's compute time over its total time. An accelerator that takes a batch of B images every
S seconds needs B/S images/s; a loader that yields fewer keeps it busy for that share of the time. The images are those
that were measured: the rules' samples have other lengths, which the results name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from larder.bench.comparison_record import Utilization

DATA = Path(__file__).with_name("accelerators.json")


class Accelerator(NamedTuple):
    """An accelerator that trains a model, from the rules of MLPerf Storage."""

    name: str
    about: str
    batch_size: int
    step_s: float
    threshold: float
    """Utilization that the rules demand."""
    sample_bytes: int
    """Bytes of a sample of the rules."""
    edition: str

    @property
    def images_per_second(self) -> float:
        """Images per second that it takes if it never waits."""
        return self.batch_size / self.step_s


@cache
def known_accelerators() -> list[Accelerator]:
    """Return all known accelerators, the least demanding first."""
    rows = json.loads(DATA.read_text(encoding="utf-8"))["accelerators"]
    return sorted((Accelerator(**row) for row in rows), key=lambda each: each.images_per_second)


def utilization_of(rate: float, rates_by_workers: Mapping[int, float]) -> list[Utilization]:
    """Return the utilization of each accelerator by an arm.

    Args:
        rate: The arm's images per second.
        rates_by_workers: Its images per second with each number of workers that was measured.
    """
    return [_utilization(accelerator, rate, rates_by_workers) for accelerator in known_accelerators()]


def largest(utilizations: list[Utilization]) -> str | None:
    """Return the name of the most demanding accelerator that is kept busy, or None."""
    busy = [each for each in utilizations if each.passes]
    return max(busy, key=lambda each: each.needs_imgs_per_s).accelerator if busy else None


def _utilization(accelerator: Accelerator, rate: float, rates_by_workers: Mapping[int, float]) -> Utilization:
    needs, threshold = accelerator.images_per_second, accelerator.threshold
    enough = [workers for workers, measured in rates_by_workers.items() if measured / needs >= threshold]
    return Utilization(
        accelerator=accelerator.name,
        needs_imgs_per_s=round(needs, 1),
        utilization=round(min(rate / needs, 1.0), 4),
        passes=rate / needs >= threshold,
        workers=min(enough, default=None),
        threshold=threshold,
        batch_size=accelerator.batch_size,
        step_s=accelerator.step_s,
        rule=accelerator.edition,
        sample_bytes=accelerator.sample_bytes,
    )
