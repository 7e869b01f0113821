"""The notebooks' plots, checked as objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from larder.bench.own_loaders import Sweep
from larder.bench.run_rates import ArmRates, ComparableArms
from larder.contract import IndexEntry, IndexSummary, Manifest, SplitSummary
from services.jupyter import plots

mpl.use("agg")

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _figures_are_closed() -> Iterator[None]:
    yield
    plt.close("all")


def one_pass(name: str, rates: list[int], times: list[float]) -> dict[str, Any]:
    return {"pass": name, "seconds": 1.9, "network_bytes": 5 * MIB, "received": {"t_s": times, "bytes_per_s": rates}}


def test_the_area_of_the_network_s_figure_is_what_was_received() -> None:
    cold = one_pass("cold", [4 * MIB, 0, 8 * MIB, MIB], [0.0, 0.5, 1.0, 1.25, 2.0])
    warm = one_pass("warm", [4096], [0.0, 2.0])
    figure = plots.network({"arm": "litdata_streaming", **cold, "then": [warm]})
    left, right = figure.axes
    for axis, area in ((left, (2 + 2 + 0.75) * MIB), (right, 8192)):
        patch: Any = axis.patches[0]
        assert len(axis.patches) == 1
        values, edges, _ = patch.get_data()
        assert np.sum(values * np.diff(edges)) * MIB == pytest.approx(area)
        assert axis.get_xlim() == (0, 1.9)
        assert axis.get_ylim() == pytest.approx((0, 8.8))
    assert "5.0 MiB of data in 1.9 s" in left.get_title("left")


@pytest.mark.parametrize(
    ("rates", "times"), [pytest.param([4096], [0.0, 2.0], id="noise"), pytest.param([], [], id="no-samples")]
)
def test_tiny_values_are_not_magnified(rates: list[int], times: list[float]) -> None:
    figure = plots.network({"arm": "imagefolder_local", **one_pass("epoch", rates, times), "then": []})
    assert figure.axes[0].get_ylim() == (0, 1)
    figure.canvas.draw()


def test_a_batch_is_shown_in_its_colours_with_its_classes() -> None:
    import torch

    from larder.imagenet import IMAGENET_MEAN, IMAGENET_STD

    colour = torch.tensor([0.2, 0.5, 0.8])
    normalized = (colour - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    images = normalized.view(1, 3, 1, 1).expand(8, 3, 224, 224)
    figure = plots.batch(images, torch.tensor([0, 1] * 4), ["Bread", "Soup"])
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == ["Bread (0)", "Soup (1)"] * 4
    for axis in shown:
        pixels = np.asarray(axis.images[0].get_array())
        assert pixels.shape == (224, 224, 3)
        assert np.allclose(pixels, colour.numpy(), atol=1e-6)


def test_throughput_shows_medians_and_all_runs() -> None:
    comparison = ComparableArms(
        "on this machine", [ArmRates("fast", [180.0, 200.0, 230.0]), ArmRates("slow", [90.0, 100.0])]
    )
    figure = plots.throughput(comparison)
    [axis] = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["fast, 3 runs", "slow, 2 runs"]
    bars: list[Any] = list(axis.patches)
    assert [bar.get_width() for bar in bars] == [200.0, 95.0]
    assert [bar.get_y() for bar in bars] == sorted((bar.get_y() for bar in bars), reverse=True), "downwards"
    spread: Any
    [spread] = axis.collections
    ends = [(segment[0][0], segment[1][0]) for segment in spread.get_segments()]
    assert ends == [(180.0, 230.0), (90.0, 100.0)]
    assert figure.get_suptitle() == "on this machine"


def test_long_names_leave_room_for_the_bars() -> None:
    where = (
        "Food-11, 9,866 images of training, a whole epoch of 64, 16 workers, a CPU with a name that is as long as any"
    )
    arm = "webdataset by webdataset from object-store.of-some-lab.example:7480, manifest 01234567"
    figure = plots.throughput(ComparableArms(where, [ArmRates(arm, [1.0, 2.0]), ArmRates("remote_one_sample", [1.0])]))
    figure.canvas.draw()
    [axis] = figure.axes
    assert axis.get_position().width > 0.5
    [title] = [
        text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text().startswith("Food-11")
    ]
    assert title.get_window_extent().x1 < figure.bbox.x1


def test_every_bar_has_its_value() -> None:
    sweep = Sweep("workers", {"1": [{"imgs/s": 90.0}, {"imgs/s": 110.0}, {"imgs/s": 99.6}], "2": [{"imgs/s": 5.126}]})
    [axis] = plots.rates(sweep).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["workers=1", "workers=2"]
    assert [text.get_text() for text in axis.texts] == ["99.6", "5.13"]
    highest, lowest = (text.xy for text in axis.texts)  # type: ignore[attr-defined]
    assert highest == (110.0, 1), "behind the whisker, and above"
    assert lowest == (5.126, 0)


def test_values_have_no_whiskers() -> None:
    [axis] = plots.values({"cold": 1234.0, "warm": 0.0}, "MB received").axes
    assert [text.get_text() for text in axis.texts] == ["1,234", "0"]
    assert not axis.collections
    assert axis.get_xlabel() == "MB received"


@pytest.mark.parametrize("splits", [1, 3, 5])
def test_series_differ_without_colours(splits: int) -> None:
    summary = SplitSummary(samples=30, bytes=1, samples_per_class=[10, 20])
    manifest = Manifest(
        artifact="tree",
        dataset="food",
        classes=["Bread", "Soup"],
        splits={f"split {number}": summary for number in range(splits)},
        input={},
        settings={},
        files=30 * splits,
        bytes=1,
        index=IndexSummary(bytes=0, sha256="0" * 64),
    )
    [axis] = plots.class_counts(manifest).axes
    bars: list[Any] = list(axis.patches)
    assert len(bars) == 2 * splits
    assert sorted(text.get_text() for text in axis.texts) == sorted(["10", "20"] * splits)
    looks = {(bar.get_facecolor(), bar.get_hatch()) for bar in bars}
    assert len(looks) == min(splits, len(plots.FILLS))
    assert all(len(set(colour[:3])) == 1 for colour, _ in looks), "grey"


def test_the_median_size_is_named() -> None:
    entries = [IndexEntry(f"{kib}.jpg", kib * 1024, "0" * 64, 0) for kib in (10, 20, 60)]
    [axis] = plots.file_sizes(entries).axes
    assert [text.get_text() for text in axis.texts] == ["median: 20.0 KiB"]
