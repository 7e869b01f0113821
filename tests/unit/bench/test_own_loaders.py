"""Measuring anybody's loaders by bench's loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from larder.bench.own_loaders import Sweep, cpu_milliseconds, measure_each, measure_loader, received_bytes
from larder.errors import InputError
from larder.loaders.traffic import NetworkTraffic


def make_dataset(images: int) -> TensorDataset:
    return TensorDataset(torch.zeros(1, 3, 224, 224).expand(images, -1, -1, -1), torch.zeros(images, dtype=torch.int64))


class Counting:
    """A loader that counts its passes and what was read of them."""

    def __init__(self, batches: int) -> None:
        self.batches, self.read, self.closed = batches, list[int](), 0

    def __iter__(self) -> Iterator[Any]:
        self.read.append(0)
        for _ in range(self.batches):
            self.read[-1] += 1
            yield torch.zeros(2, 3, 224, 224), torch.zeros(2, dtype=torch.int64)

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_a_whole_pass_is_measured(workers: int, persistent: bool) -> None:
    loader = DataLoader(make_dataset(20), 8, num_workers=workers, persistent_workers=persistent)
    for _ in range(2):  # a loader is still of use after a measurement
        figures = measure_loader(loader)
        assert (figures["pass"], figures["images"], figures["batches"]) == ("epoch", 20, 3)
        assert figures["imgs/s"] == pytest.approx(20 / figures["seconds"], rel=1e-3)


def test_the_warm_up_is_a_pass_of_its_own() -> None:
    loader = Counting(4)
    assert measure_loader(loader, warmup_batches=2)["batches"] == 4
    assert loader.read == [2, 4]
    measure_loader(loader, warmup_batches=0, name="cold")
    assert loader.read == [2, 4, 4]


def test_the_traffic_of_the_pass_alone_is_counted() -> None:
    class FromStore(Counting):
        def network(self) -> NetworkTraffic:
            return NetworkTraffic(100 * sum(self.read), None)

    figures = measure_loader(FromStore(4), warmup_batches=2)
    assert (figures["network_bytes"], figures["network_requests"]) == (400, None)
    assert measure_loader(Counting(4))["network_bytes"] is None


def test_webdatasets_loader_is_measured_too() -> None:
    import webdataset

    loader = webdataset.WebLoader(make_dataset(20), batch_size=8, num_workers=1, persistent_workers=True)
    assert measure_loader(loader)["images"] == 20


def test_rounds_alternate_and_loaders_are_closed(capsys: pytest.CaptureFixture[str]) -> None:
    made: list[tuple[int, Counting]] = []

    def make(batches: int) -> Counting:
        made.append((batches, Counting(batches)))
        return made[-1][1]

    sweep = measure_each("batches", [1, 2, 3], make, rounds=4)
    order = [value for value, _ in made]
    assert all(sorted(order[start : start + 3]) == [1, 2, 3] for start in range(0, 12, 3))
    assert len({tuple(order[start : start + 3]) for start in range(0, 12, 3)}) > 1, "not in the same order each time"
    assert all(loader.closed == 1 for _, loader in made)
    assert {value: [run["batches"] for run in runs] for value, runs in sweep.runs.items()} == {
        "1": [1] * 4,
        "2": [2] * 4,
        "3": [3] * 4,
    }
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("round 1 of 4, images/s: batches=1 ")


def test_a_loader_is_closed_if_it_fails() -> None:
    class Failing(Counting):
        def __iter__(self) -> Iterator[Any]:
            raise OSError("no")

    loader = Failing(1)
    with pytest.raises(OSError, match="no"):
        measure_each("", ["it"], lambda _: loader, rounds=1)
    assert loader.closed == 1


def test_cold_and_warm_count_as_values() -> None:
    """Both passes are those of one loader, from its first batch."""
    made: list[Counting] = []
    sweep = measure_each(
        "cache", [3], lambda batches: made.append(Counting(batches)) or made[-1], rounds=2, passes=("cold", "warm")
    )
    assert list(sweep.runs) == ["3, cold", "3, warm"]
    assert [arm.name for arm in sweep.rates()] == ["cache=3, cold", "cache=3, warm"]
    assert [loader.read for loader in made] == [[3, 3]] * 2


def test_a_single_named_pass_has_no_warm_up() -> None:
    made = []
    measure_each("", [1], lambda batches: made.append(Counting(batches)) or made[-1], rounds=1, passes=("cold",))
    assert [loader.read for loader in made] == [[1]]


def test_an_empty_loader_is_told() -> None:
    with pytest.raises(InputError, match="no batch"):
        measure_loader([])


def test_other_batches_are_refused() -> None:
    with pytest.raises(TypeError, match="uint8"):
        measure_loader([(torch.zeros(2, 3, 224, 224, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))])


def figures(rate: float, network_bytes: int | None = None) -> dict[str, Any]:
    received = {"t_s": [0.0, 0.5, 1.5], "bytes_per_s": [100, 10]}
    return {"imgs/s": rate, "cpu_s_per_1000_imgs": 2.5, "received": received, "network_bytes": network_bytes}


def test_the_verdict_names_the_setting() -> None:
    sweep = Sweep("workers", {"1": [figures(100), figures(110)], "2": [figures(200), figures(190)]})
    assert [arm.rates for arm in sweep.rates()] == [[100, 110], [190, 200]]
    assert sweep.verdict() == "workers=2 is 1.86 times as fast as workers=1 (1.73 to 2.00)"
    near = Sweep("", {"disk": [figures(100), figures(110)], "mount": [figures(105), figures(120)]})
    assert near.verdict().startswith("mount is 1.07 times as fast as disk")
    assert near.verdict().endswith("no significant difference (intervals overlap)")


def test_medians_of_other_figures() -> None:
    sweep = Sweep("workers", {"1": [figures(1)], "2": [figures(1)]})
    assert sweep.medians(cpu_milliseconds) == {"workers=1": 2.5, "workers=2": 2.5}
    assert sweep.medians(received_bytes) == {"workers=1": 60, "workers=2": 60}
    assert received_bytes(figures(1, 7)) == 7, "the loader's own count, as of a mount that another container serves"
