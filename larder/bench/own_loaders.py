"""Measure anybody's loaders by bench's loop: one alone, or several in interleaved rounds that differ in one setting."""

from __future__ import annotations

import random
import statistics
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from larder.bench.measure import measure
from larder.bench.passes import Pass, traffic_between
from larder.bench.run_rates import ArmRates, ComparableArms
from larder.bench.run_record import figures_of
from larder.errors import InputError
from larder.loaders.loader import end_workers

if TYPE_CHECKING:
    from larder.loaders.loader import Batch

Value = TypeVar("Value")
EPOCH = ("epoch",)
MORE_WORKERS = "This DataLoader will create"
"""How torch's warning of more workers than cores begins: what they bring is a question of measuring."""


class Sweep(NamedTuple):
    """Measurements of a loader with several values of one setting."""

    setting: str
    """What was changed, such as "workers"; empty if the values speak for themselves."""
    runs: dict[str, list[dict[str, Any]]]
    """For each value, as text, the figures of each round. See `measure_loader`."""

    def rates(self) -> list[ArmRates]:
        """Return the images per second of each value, in the order of measuring."""
        return [
            ArmRates(_name(self.setting, value), sorted(run["imgs/s"] for run in runs))
            for value, runs in self.runs.items()
        ]

    def verdict(self) -> str:
        """Return the fastest value, and by how much it is faster than each other, with the range of single runs."""
        return ComparableArms("", sorted(self.rates(), key=lambda arm: -arm.median)).verdict()

    def medians(self, figure: Callable[[dict[str, Any]], float]) -> dict[str, float]:
        """Return the median of a figure for each value, such as `received_bytes`."""
        return {_name(self.setting, value): statistics.median(map(figure, runs)) for value, runs in self.runs.items()}


def received_bytes(figures: dict[str, Any]) -> int:
    """Return the bytes that a loader counted during a pass.

    For a loader that doesn't count, return the bytes that this machine received, with headers and those of other
    programs.
    """
    if figures["network_bytes"] is not None:
        return int(figures["network_bytes"])
    times, speeds = figures["received"]["t_s"], figures["received"]["bytes_per_s"]
    return int(sum(speed * (end - begin) for speed, begin, end in zip(speeds, times, times[1:], strict=False)))


def cpu_milliseconds(figures: dict[str, Any]) -> float:
    """Return the CPU time per image of a pass, in milliseconds; that of workers is included."""
    return float(figures["cpu_s_per_1000_imgs"])


def measure_loader(loader: Iterable[Batch], *, warmup_batches: int = 1, name: str = "epoch") -> dict[str, Any]:
    """Read some batches as a warm-up, then measure a pass of a loader, by the loop that bench measures with.

    The pass starts the loader's workers, unless they are persistent and nothing was read as a warm-up.

    Args:
        loader: Anything that yields batches: images, float32 [B, 3, 224, 224], and labels, int64 [B]. If it has
            `network`, as larder's loaders have, the figures include its traffic.
        warmup_batches: Batches to read first, in a pass of their own.
        name: Name of the pass.

    Returns:
        The figures of the pass, with the keys of a record of bench.

    Raises:
        InputError: If the loader yields nothing.
        TypeError: If it yields batches of another kind.

    Example:
        >>> import torch
        >>> batches = [(torch.zeros(8, 3, 224, 224), torch.zeros(8, dtype=torch.int64))] * 3
        >>> measure_loader(batches)["images"]
        24
    """
    if warmup_batches:
        for _ in islice(loader, warmup_batches):
            pass
        _end_workers(loader)  # they read ahead
    network = getattr(loader, "network", lambda: None)
    before = network()
    measured = measure(_tell_empty(loader), lambda _: None)
    return {"pass": name} | figures_of(Pass(measured, traffic_between(before, network())))


def measure_each(
    setting: str,
    values: Iterable[Value],
    make_loader: Callable[[Value], Iterable[Batch]],
    *,
    rounds: int = 3,
    passes: Sequence[str] = EPOCH,
) -> Sweep:
    """Measure a loader with each value of a setting, in rounds, and print the rates of each round.

    Each round measures every value once, in random order, so that other work on this machine affects all of them alike.

    Args:
        setting: Name of the setting, such as "workers"; empty if the values speak for themselves.
        values: Its values.
        make_loader: Makes a loader for a value. It is called for each run, and the loader is closed after it, if it has
            `close`.
        rounds: Runs of each value.
        passes: Names of the passes of a run, one after the other, such as `("cold", "warm")`. If any are given, nothing
            is read as a warm-up.

    Returns:
        The figures of all runs. With several passes, each pass counts as a value.

    Raises:
        InputError: If a loader yields nothing.
        TypeError: If it yields batches of another kind.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", MORE_WORKERS)
        return _measure_rounds(setting, list(values), make_loader, rounds, passes)


def _measure_rounds(
    setting: str,
    order: list[Value],
    make_loader: Callable[[Value], Iterable[Batch]],
    rounds: int,
    passes: Sequence[str],
) -> Sweep:
    labels = [_label(value, name, passes) for value in order for name in passes]
    runs: dict[str, list[dict[str, Any]]] = {label: [] for label in labels}
    for number in range(rounds):
        for value in random.Random(number).sample(order, len(order)):
            for figures in _measure_passes(make_loader(value), passes, warmup_batches=int(tuple(passes) == EPOCH)):
                runs[_label(value, figures["pass"], passes)].append(figures)
        rates = ", ".join(f"{_name(setting, label)} {runs[label][-1]['imgs/s']:,.0f}" for label in labels)
        print(f"round {number + 1} of {rounds}, images/s: {rates}", flush=True)
    return Sweep(setting, runs)


def _name(setting: str, label: str) -> str:
    return f"{setting}={label}" if setting else label


def _label(value: object, name: str, passes: Sequence[str]) -> str:
    return str(value) if len(passes) == 1 else f"{value}, {name}"


def _measure_passes(loader: Iterable[Batch], passes: Sequence[str], warmup_batches: int) -> list[dict[str, Any]]:
    try:
        return [measure_loader(loader, warmup_batches=warmup_batches, name=name) for name in passes]
    finally:
        _end_workers(loader)
        close = getattr(loader, "close", None)
        if close is not None:
            close()


def _end_workers(loader: Iterable[Batch]) -> None:
    end_workers(getattr(loader, "pipeline", [loader])[0])  # webdataset's loader wraps a DataLoader


def _tell_empty(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the loader's batches. Raise InputError if there is none."""
    number = 0
    for number, batch in enumerate(loader, 1):  # noqa: B007  (the last number is needed)
        yield batch
    if not number:
        raise InputError("the loader yielded no batch", next_step="check which files or shards its dataset lists")
