"""What notebooks call, without a kernel: figures are looked at as objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

mpl.use("agg")

from services.jupyter import lab

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _figures_are_closed() -> Iterator[None]:
    yield
    plt.close("all")


def one_pass(name: str, rates: list[int], times: list[float]) -> dict[str, Any]:
    return {
        "pass": name, "seconds": 1.9, "network_bytes": 5 * MIB, "received": {"t_s": times, "bytes_per_s": rates}
    }  # fmt: skip


def test_the_area_of_the_network_s_figure_is_what_was_received() -> None:
    cold = one_pass("cold", [4 * MIB, 0, 8 * MIB, MIB], [0.0, 0.5, 1.0, 1.25, 2.0])
    warm = one_pass("warm", [4096], [0.0, 2.0])
    figure = lab.network({"arm": "litdata_streaming", **cold, "then": [warm]})
    left, right = figure.axes
    for axis, wanted in ((left, (2 + 2 + 0.75) * MIB), (right, 8192)):
        [patch] = axis.patches
        values, edges, _ = patch.get_data()
        assert np.sum(values * np.diff(edges)) * MIB == pytest.approx(wanted)
        assert axis.get_xlim() == (0, 1.9)
        assert axis.get_ylim() == pytest.approx((0, 8.8))
    assert "5.0 MiB of data in 1.9 s" in left.get_title()


@pytest.mark.parametrize(
    ("rates", "times"), [pytest.param([4096], [0.0, 2.0], id="noise"), pytest.param([], [], id="no-samples")]
)
def test_what_is_nearly_nothing_is_not_blown_up(rates: list[int], times: list[float]) -> None:
    figure = lab.network({"arm": "imagefolder_local", **one_pass("epoch", rates, times), "then": []})
    assert figure.axes[0].get_ylim() == (0, 1)
    figure.canvas.draw()
