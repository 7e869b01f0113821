"""The arithmetic of docs/scale.md."""

from __future__ import annotations

import shlex

import pytest

from docs.generate import ROOT
from docs.scale import Costs, Prices, cost_table, main, steps, storage_month, stream_table, with_tables
from tests.markdown import blocks


def test_steps_multiply_what_an_image_costs() -> None:
    costs = Costs(
        image_bytes=98_000, measured_bytes=49_000, header_bytes=2_000, shard_ms=3.6, shard_bytes=1e7, index_bytes=0
    )
    [shard] = [step for step in steps(1_000_000, costs) if step.name.startswith("shard")]
    assert shard.core_hours == pytest.approx(2.0)
    assert shard.stored_bytes == pytest.approx(1e11)
    assert shard.puts == pytest.approx(10_000)
    prices = Prices(vcpu_hour=2.0, put=0.01, get=0.001)
    assert shard.money(prices) == pytest.approx(4.0 + 0.1 + 0.01)


def test_large_shards_are_sent_in_parts() -> None:
    costs = Costs(image_bytes=98_000, header_bytes=2_000, shard_bytes=1 << 30)
    [shard] = [step for step in steps(1_000_000, costs) if step.name.startswith("shard")]
    assert shard.puts == pytest.approx(1e11 / (16 << 20) + 2 * 1e11 / (1 << 30))


def test_single_images_cost_a_request_each() -> None:
    found = {step.name: step for step in steps(5_000_000, Costs())}
    assert found["load of single images, instead"].puts == 5_000_000
    assert found["an epoch with one GET per image, instead"].gets == 5_000_000
    assert found["an epoch of larder.stream"].gets < 5_000_000 / 30


def test_reading_from_elsewhere_costs_the_bytes() -> None:
    lines = list(cost_table(1_000_000, Costs(image_bytes=98_000, header_bytes=2_000), Prices(egress_gb=0.1)))
    cells = {line.split("|")[1].strip(): line.split("|")[6].strip() for line in lines}
    assert cells["an epoch of larder.stream"] == "10"
    assert cells["extract"] == ""


@pytest.mark.parametrize(
    ("terabytes", "dollars"),
    [(1, 23), (50, 1_150), (60, 1_150 + 220), (500, 1_150 + 9_900), (600, 1_150 + 9_900 + 2_100)],
)
def test_storing_more_is_cheaper_per_byte(terabytes: int, dollars: float) -> None:
    assert storage_month(terabytes * 1e12, Prices()) == pytest.approx(dollars)


def test_every_figure_has_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--vcpu-hour", "0", "--put", "0", "--get", "0", "--storage-gb-month", "0"])
    free = capsys.readouterr().out
    main([])
    assert free != capsys.readouterr().out
    rows = [line for line in free.splitlines() if line.startswith(("| extract", "| shard", "| an epoch", "| load"))]
    assert len(rows) == 15
    assert all(row.split("|")[5].strip() == "0" for row in rows)


def test_the_pages_command(capsys: pytest.CaptureFixture[str]) -> None:
    [block] = blocks("docs/scale.md", "sh")
    words = shlex.split(block.text)
    assert words[:3] == ["python", "-m", "docs.scale"]
    main(words[3:])
    assert "| extract |" in capsys.readouterr().out


def test_ranks_share_the_order() -> None:
    lines = list(stream_table(Costs(order_bytes=64, order_us=1.0, block_order_bytes=0, block_order_us=0), (1, 64)))
    assert lines[3].endswith("| 6.4 GB, 100 s | 100 MB, 1.6 s |")


def test_the_page_has_a_place_for_each_table() -> None:
    assert with_tables((ROOT / "docs/scale.md").read_text())
    with pytest.raises(ValueError, match="no place for the table"):
        with_tables("nothing")


def test_a_table_has_a_row_for_each_step() -> None:
    assert len(list(cost_table(100, Costs(), Prices()))) == 2 + len(steps(100, Costs()))
