import json

import pytest

from larder.errors import InputError
from services.bench.compare import compare, read_records


def record(arm, *rates, workers=2, time="2026-01-01T00:00:00", passes=("epoch",), loader="larder"):
    first, *others = ({"pass": name, "imgs/s": rate} for name, rate in zip(passes, rates, strict=True))
    return {
        "arm": arm, **first, "then": others,
        "dataset": {"name": "Food-11", "split": "training", "samples": {"training": 640}},
        "settings": {"batch_size": 64, "workers": workers, "batches": 0, "webdataset_loader": loader},
        "provenance": {"time_utc": time, "cpu_model": "a CPU", "cores": 2},
    }  # fmt: skip


def test_the_fastest_comes_first_with_ratios_and_their_spread():
    [found] = compare([record("a", 100.0), record("b", 200.0), record("b", 220.0), record("a", 110.0)])
    assert [(arm.name, arm.median) for arm in found.arms] == [("b", 210.0), ("a", 105.0)]
    assert found.verdict() == "b is 2.00 times as fast as a (1.82 to 2.20)"


def test_spreads_that_overlap_are_no_victory():
    [found] = compare([record("a", 100.0), record("a", 130.0), record("b", 120.0), record("b", 140.0)])
    assert "b is 1.13 times as fast as a (0.92 to 1.40); their spreads overlap: not told apart" in found.verdict()


def test_other_circumstances_are_not_mixed():
    most, other = compare([record("a", 1.0), record("b", 2.0), record("a", 9.0, workers=4)])
    assert [arm.name for arm in most.arms] == ["b", "a"]
    assert "2 workers" in most.circumstances
    assert other.verdict() == "only a was measured under these circumstances: measure another arm"


def test_each_pass_is_an_arm_of_its_own():
    [found] = compare([record("litdata_streaming", 50.0, 150.0, passes=("cold", "warm"))])
    assert [arm.name for arm in found.arms] == ["litdata_streaming (warm)", "litdata_streaming (cold)"]


def test_two_loaders_of_one_arm_are_no_spread():
    [found] = compare([record("webdataset", 100.0), record("webdataset", 300.0, loader="webdataset")])
    assert [(arm.name, arm.rates) for arm in found.arms] == [
        ("webdataset by webdataset", [300.0]), ("webdataset", [100.0]),
    ]  # fmt: skip


def test_records_are_read_by_their_time_without_trainings(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(record("late", 1.0, time="2026-02-01")))
    (tmp_path / "b.json").write_text(json.dumps(record("early", 1.0, time="2026-01-01")))
    (tmp_path / "train-a.json").write_text(json.dumps({"arm": "a", "kind": "train"}))
    assert [each["arm"] for each in read_records(tmp_path)] == ["early", "late"]


@pytest.mark.parametrize("content", [None, "{}", "[1]", "no JSON"])
def test_nothing_to_compare(tmp_path, content):
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError) as caught:
        read_records(tmp_path)
    assert "make bench" in caught.value.next_step or "move it" in caught.value.next_step
