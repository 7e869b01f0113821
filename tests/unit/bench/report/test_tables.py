"""The tables of a comparison, as text and as Markdown."""

from __future__ import annotations

import re
from typing import Any

import pytest

from larder.bench.report.facts import number, percent, shorten, significant, size
from larder.bench.report.plots import plot_epochs, plot_throughput
from larder.bench.report.tables import (
    MAX_ROWS,
    Table,
    all_tables,
    as_markdown,
    as_text,
    bounds_table,
    cost_table,
    markdown_text,
    notes,
    speed_table,
)


def test_throughput_is_fastest_first_with_intervals_and_ratios(content: dict[str, Any]) -> None:
    table = speed_table(content)
    assert [row[0] for row in table.rows][:2] == ["stream", "imagefolder_local"]
    assert dict(zip(table.header, table.rows[0], strict=True)) == {
        "arm": "stream",
        "workers": "2",
        "imgs/s": "1,470",
        "95% interval": "1,453 to 1,492",
        "fastest ÷ this": "1",
        "batches/s": "23.15",
        "avg_batch_s": "0.0432",
        "first batch, s": "0.13",
        "epoch 2, imgs/s": "1,493",
        "keeps busy": "a100-resnet50",
    }
    assert table.rows[1][4] == "3.44 (3.35 to 3.48)"


def test_a_ratio_within_the_noise_says_so(content: dict[str, Any]) -> None:
    content["summary"]["ratios"][0]["differs"] = False
    assert speed_table(content).rows[1][4].endswith(", not significant")
    content["summary"]["ratios"] = []
    assert speed_table(content).rows[1][4] == "–"


def test_a_single_round_has_no_interval(content: dict[str, Any]) -> None:
    for arm in content["summary"]["arms"]:
        arm["rounds"] = 1
    for ratio in content["summary"]["ratios"]:
        ratio["rounds"] = ratio["rounds"][:1]
    assert speed_table(content).rows[1][3:5] == ("one round", "3.44 (one round)")
    assert "4,000 images of training, 1 round;" in notes(content)[-1]


@pytest.mark.parametrize(
    ("bandwidth", "shown"),
    [(None, "through a link of 20 ms;"), (200_000_000, "through a link of 20 ms and 200 Mbit/s;")],
)
def test_a_distant_store_says_so(content: dict[str, Any], bandwidth: int | None, shown: str) -> None:
    assert "distance" not in notes(content)[-1]
    content["provenance"].update(latency_s=0.02, bandwidth_bits_per_s=bandwidth)
    assert shown in notes(content)[-1]


def test_training_steps_stand_beside_those_on_synthetic_data(content: dict[str, Any]) -> None:
    assert "Training steps" not in [table.caption for table in all_tables(content)]
    content["summary"]["arms"][1]["steps"] = {
        "device": "cuda: a GPU", "model": "ResNet-50", "imgs_per_s": 900.0, "step_p50_s": 0.05, "step_p99_s": 0.12,
        "busy_share": {"median": 0.72, "low": 0.7, "high": 0.75}, "synthetic_step_p50_s": 0.04,
        "synthetic_step_p99_s": 0.06,
    }  # fmt: skip
    [table] = [table for table in all_tables(content) if table.caption == "Training steps"]
    [row] = table.rows
    assert row == (
        "imagefolder_local", "2", "72% (70% to 75%)", "900", "0.0500", "0.1200", "0.0400", "0.0600", "2.00",
        "cuda: a GPU", "ResNet-50",
    )  # fmt: skip


def figures_of(content: dict[str, Any], arm: str) -> dict[str, str]:
    table = cost_table(content)
    return next(dict(zip(table.header, row, strict=True)) for row in table.rows if row[0] == arm)


def test_what_is_unknown_is_not_shown_as_a_number(content: dict[str, Any]) -> None:
    [arm] = content["summary"]["arms"] = content["summary"]["arms"][:1]
    arm.update(order_entropy=None, exactly_once=None, network_bytes_per_img=None, share_of_roofline=None)
    content["arms"] = []
    row = figures_of(content, "stream")
    unknown = ("order entropy", "network/img", "each sample once", "pixel error")
    assert {row[name] for name in unknown} == {"unknown"}
    assert row["of upper bound"] == "–"
    arm["exactly_once"] = False
    assert "NO" in cost_table(content).rows[0]


def test_a_share_above_the_upper_bound_is_marked_and_explained(content: dict[str, Any]) -> None:
    assert not any("upper bound" in note for note in notes(content))
    content["summary"]["arms"][0].update(share_of_roofline=1.04)
    assert figures_of(content, content["summary"]["arms"][0]["arm"])["of upper bound"] == "104% *"
    [note] = [note for note in notes(content) if "upper bound" in note]
    assert note.startswith("* Above 100% of the upper bound: the bound is measured for a second or two")


def test_a_single_round_has_no_interval_anywhere(content: dict[str, Any]) -> None:
    content["rounds"] = [one for one in content["rounds"] if one["round"] <= 1]
    for arm in content["summary"]["arms"]:
        arm["rounds"] = 1
    for ratio in content["summary"]["ratios"]:
        ratio["rounds"] = ratio["rounds"][:1]
    [noise] = [note for note in notes(content) if note.startswith("A/A test: ")]
    assert noise.endswith("stream twice gives a ratio of 0.991 (one round): quiet")
    assert {row[3] for row in speed_table(content).rows} == {"one round"}
    assert all(" to " not in row[4] for row in speed_table(content).rows)
    throughput = plot_throughput(content)
    assert throughput is not None
    assert {row[3] for row in throughput.table.rows} == {"one round", "–"}
    assert " to " not in throughput.svg.partition("</desc>")[0].partition("<desc")[2]
    epochs = plot_epochs(content)
    assert epochs is not None
    assert all("(one round)" in cell for row in epochs.table.rows for cell in row[2:4])


def test_no_network_and_an_unknown_traffic_look_different(content: dict[str, Any]) -> None:
    local, counted = (figures_of(content, name) for name in ("imagefolder_local", "stream"))
    assert (local["network/img"], local["requests/1,000 imgs"]) == ("–", "–")
    assert (counted["network/img"], counted["requests/1,000 imgs"]) == ("100 kB", "24.0")
    assert figures_of(content, "litdata_streaming")["requests/1,000 imgs"] == "unknown"
    [explained] = [note for note in notes(content) if "a proxy does" in note]
    assert explained.startswith("Network bytes or requests of litdata_streaming are unknown")
    assert any(note.startswith("– stands for what doesn't apply") for note in notes(content))


def test_parts_of_an_epoch_arent_checked_for_each_sample(content: dict[str, Any]) -> None:
    content["summary"]["arms"][0].update(exactly_once=None)
    assert figures_of(content, "stream")["each sample once"] == "–"


def test_notes_tell_noise_failures_and_what_was_left_out(content: dict[str, Any]) -> None:
    text = "\n".join(notes(content))
    assert "A/A test: stream twice gives a ratio of 0.991 (0.980 to 1.036): quiet" in text
    assert "mosaicml_streaming was left out: the package `mosaicml-streaming` isn't installed; pip install" in text
    assert "remote_one_sample with 2 workers failed in round 3 (error): the store answered 503" in text
    assert "photos, 4,000 images of training, 5 rounds; AMD EPYC 9R14, 2 cores" in text


def test_notes_check_what_measuring_takes(content: dict[str, Any]) -> None:
    instrument = content["summary"]["instrument"]
    instrument.update(share_of_fastest=0.004, seconds_per_batch=5e-5)
    [note] = [note for note in notes(content) if note.startswith("Overhead of measuring: ")]
    assert "0.40% of the fastest arm's time per batch, below the limit of 1%; that is 50 µs for each batch" in note
    instrument["share_of_fastest"] = 0.0153
    [note] = [note for note in notes(content) if note.startswith("Overhead of measuring: ")]
    assert "1.53% of the fastest arm's time per batch, WARNING: above the limit of 1%" in note


def test_notes_tell_the_length_of_the_rules_samples(content: dict[str, Any]) -> None:
    assert not any("kept busy with these images" in note for note in notes(content)), "a record of an earlier version"
    content["summary"]["arms"][0]["utilization"][0].update(accelerator="b200-retinanet", sample_bytes=322_957)
    [note] = [note for note in notes(content) if "kept busy with these images" in note]
    assert note.endswith("of 100 kB on average; the rules' samples have 323 kB for b200-retinanet")


def test_workers_that_a_library_ignores_arent_shown_as_a_number(content: dict[str, Any]) -> None:
    assert "all cores" not in str(all_tables(content))
    content["arms"][0]["workers"] = "all cores"
    for table in (speed_table(content), cost_table(content)):
        assert {row[0]: row[1] for row in table.rows}["stream"] == "all cores"


def test_cores_of_earlier_records_are_unknown(content: dict[str, Any]) -> None:
    content["summary"]["arms"][0]["cores"] = {"median": 1.874, "low": 1.8, "high": 1.9}
    content["summary"]["arms"][1].pop("cores", None)
    assert figures_of(content, "stream")["cores busy"] == "1.87"
    assert figures_of(content, "imagefolder_local")["cores busy"] == "unknown"


def test_a_record_without_figures_has_no_tables(content: dict[str, Any]) -> None:
    content.update(rooflines=[])
    content["summary"]["arms"] = []
    assert all_tables(content) == []
    assert notes(content)


def test_columns_are_aligned(content: dict[str, Any]) -> None:
    lines = as_text("The answer.", [bounds_table(content)], ["A remark."]).split("\n")
    assert lines == [
        "The answer.",
        "",
        "Upper bounds:",
        "bound               imgs/s  bytes/s  threads  what",
        "decode               1,900        –        2  decode, crop and resize from memory with larder.stream's kernel",
        "decode_pil             820        –        2  the same with PIL",
        "stream_from_memory   1,610        –        2  larder.stream over shards in memory: the fastest known way to "
        "the same pixels",
        "disk_read            9,800   982 MB        2  read a file of the local data, bypassing the page cache",
        "store_read           6,900   692 MB        8  GET ranges of shards, and discard them",
        "",
        "A remark.",
    ]


def test_markdown_has_the_same_cells(content: dict[str, Any]) -> None:
    table = speed_table(content)
    lines = as_markdown("The answer.", [table], ["A remark."]).split("\n")
    assert lines[:4] == ["The answer.", "", "**Throughput**", ""]
    assert lines[5].startswith("| --- | ---: |")
    assert [line.count(" | ") for line in lines[4:12]] == [len(table.header) - 1] * 8
    assert lines[-2:] == ["- A remark.", ""]


HOSTILE = "a|b\x1b[2J\n# <b>*_`[x](javascript:1) \u202e"


def test_text_of_a_record_is_data() -> None:
    table = Table(HOSTILE, ("arm", HOSTILE), [(HOSTILE, HOSTILE)])
    plain = as_text(HOSTILE, [table], [HOSTILE])
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", plain)
    assert len(plain.split("\n")) == 7
    markdown = as_markdown(HOSTILE, [table], [HOSTILE])
    assert "<b>" not in markdown
    assert not re.search(r"(?<!\\)[*`\[]|(?<![\\\w])_", re.sub(r"^\*\*|\*\*$", "", markdown, flags=re.MULTILINE))
    assert markdown_text("imagefolder_local _all_") == r"imagefolder_local \_all\_"
    assert len(markdown.split("\n")) == 10
    assert markdown_text("&lt;") == "&amp;lt;"


def test_long_tables_are_cut_and_say_so() -> None:
    table = Table("many", ("arm", "imgs/s"), [(str(at), "1") for at in range(MAX_ROWS + 7)])
    assert len(table.shown_rows()) == MAX_ROWS + 1
    assert table.shown_rows()[-1] == ("and 7 more rows", "")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (number(1234567.0), "1,234,567"),
        (number(1e15), "1.000e+15"),
        (number(None), "–"),
        (significant(0.680), "0.680"),
        (significant(0), "0"),
        (significant(12.34), "12.3"),
        (significant(1234.5), "1,234"),
        (significant(0.0123), "0.0123"),
        (size(999), "999 B"),
        (size(401e6), "401 MB"),
        (size(5e15), "5,000 TB"),
        (percent(0.9996), ">99%"),
        (percent(1.0), "100%"),
        (shorten("abcdef", 4), "abc…"),
    ],
)
def test_figures(shown: str, expected: str) -> None:
    assert shown == expected
