"""Summaries of comparisons: medians, ratios, the A/A test, accelerators."""

from __future__ import annotations

from pathlib import Path

import pytest

from larder.bench.accelerators import known_accelerators, utilization_of
from larder.bench.comparison_parts import Roofline, Round
from larder.bench.comparison_record import Summary, read_comparison
from larder.bench.statistics import median_interval
from larder.bench.summarize import AGAIN, NOTHING, Conditions, summarize

TEMPLATE = read_comparison(Path(__file__).with_name("comparison.json")).rounds[0]


def rounds_of(arm: str, *rates: float, workers: int = 2, instrument_cpu_s: float = 0.0) -> list[Round]:
    """Return a warm-up of 1 image/s, and a round with each rate."""
    epoch = TEMPLATE.epochs[0].model_copy(update={"batches": 63, "instrument_cpu_s": instrument_cpu_s})
    return [
        TEMPLATE.model_copy(
            update={
                "arm": arm,
                "workers": workers,
                "round": number,
                "epochs": [epoch.model_copy(update={"imgs_per_s": rate, "avg_batch_s": 64 / rate})],
            }
        )
        for number, rate in enumerate([1.0, *rates])
    ]


def summary_of(*rounds: list[Round], rooflines: tuple[Roofline, ...] = ()) -> Summary:
    return summarize([one for group in rounds for one in group], rooflines, Conditions(is_sure=True))


def test_the_interval_contains_the_median_and_spans_the_rounds() -> None:
    interval = median_interval([90.0, 100.0, 110.0, 95.0, 105.0])
    assert (interval.median, interval.low, interval.high) == (100.0, 90.0, 110.0)


def test_equal_rounds_have_an_interval_of_no_width() -> None:
    interval = median_interval([5.0] * 5)
    assert interval.low == interval.high == 5.0


def test_warm_ups_dont_count_and_the_fastest_comes_first() -> None:
    found = summary_of(rounds_of("slow", 100, 102, 98), rounds_of("fast", 200, 210, 190))
    assert [(arm.arm, arm.imgs_per_s.median, arm.rounds) for arm in found.arms] == [("fast", 200, 3), ("slow", 100, 3)]


def test_ratios_are_paired_by_round() -> None:
    """Both arms are twice as fast in round 2: the ratio is the same."""
    found = summary_of(rounds_of("fast", 200, 400, 200), rounds_of("slow", 100, 200, 100))
    [ratio] = found.ratios
    assert (ratio.rounds, ratio.ratio.low, ratio.ratio.high, ratio.differs) == ([2.0, 2.0, 2.0], 2.0, 2.0, True)


def test_arms_that_win_in_turn_dont_differ() -> None:
    found = summary_of(rounds_of("a", 100, 130, 100, 130), rounds_of("b", 110, 105, 110, 105))
    assert not found.ratios[0].differs
    assert "no significant difference" in found.answer


@pytest.mark.parametrize(
    ("again", "verdict"),
    [
        ([101, 99, 100, 100, 100], "quiet"),
        ([110, 111, 112, 110, 111], "noisy"),
        ([130, 70, 130, 70, 100], "noisy"),
    ],
    ids=["within the interval", "always faster", "interval too wide"],
)
def test_the_same_arm_twice_must_give_one(again: list[float], verdict: str) -> None:
    found = summary_of(rounds_of("a", *[100.0] * 5), rounds_of(f"a{AGAIN}", *again))
    assert found.repeated is not None
    assert found.repeated.verdict == verdict
    assert found.confidence == ("high" if verdict == "quiet" else "low")
    assert ("too noisy" in found.answer) == (verdict == "noisy")
    assert [arm.arm for arm in found.arms] == ["a"]


def test_an_arm_that_costs_nothing_tells_the_overhead() -> None:
    found = summary_of(rounds_of("a", 1000.0), rounds_of(NOTHING, 1_000_000.0))
    assert found.instrument is not None
    assert found.instrument.share_of_fastest == pytest.approx(0.001)


def test_the_overhead_has_the_time_of_the_measuring_threads() -> None:
    """They take 0.063 s for 63 batches of 0.064 s each."""
    found = summary_of(rounds_of("a", 1000.0, instrument_cpu_s=0.063), rounds_of(NOTHING, 1_000_000.0))
    assert found.instrument is not None
    assert found.instrument.share_of_fastest == pytest.approx(0.001 + 0.001 / 0.064, abs=1e-4)


def test_the_waterfall_adds_up_to_the_time_of_the_arm() -> None:
    bounds = tuple(
        Roofline(name=name, about="", imgs_per_s=rate, bytes_per_s=None, rounds=[rate], workers=2)
        for name, rate in (("decode", 500.0), ("stream_from_memory", 400.0))
    )
    found = summary_of(rounds_of("a", 200.0), rooflines=bounds)
    assert {step.step: step.s_per_1000_imgs for step in found.waterfall} == {"decode": 2.0, "batch": 0.5, "rest": 2.5}
    assert found.arms[0].share_of_roofline == 0.5


def test_upper_bounds_hold_for_the_number_of_workers_they_were_measured_with() -> None:
    bound = Roofline(name="decode", about="", imgs_per_s=500.0, bytes_per_s=None, rounds=[500.0], workers=1)
    found = summary_of(rounds_of("a", 400.0, workers=1), rounds_of("a", 700.0, workers=2), rooflines=(bound,))
    assert {arm.workers: arm.share_of_roofline for arm in found.arms} == {1: 0.8, 2: None}


def test_a_sweep_tells_the_fewest_workers_that_keep_an_accelerator_busy() -> None:
    found = summary_of(rounds_of("a", 300.0, workers=1), rounds_of("a", 600.0, workers=2))
    utilization = {each.accelerator: each for each in found.arms[1].utilization}
    assert not utilization["mi355-retinanet"].passes
    assert utilization["mi355-retinanet"].workers == 2
    assert utilization["h100-resnet50"].workers is None
    assert found.arms[0].largest_accelerator == "b200-retinanet"
    assert found.arms[1].largest_accelerator is None


def test_utilization_is_the_rate_over_what_the_accelerator_takes() -> None:
    h100 = next(each for each in known_accelerators() if each.name == "h100-resnet50")
    assert h100.images_per_second == pytest.approx(1785.7, abs=0.1)
    shares = {each.accelerator: each.utilization for each in utilization_of(h100.images_per_second / 2, {})}
    assert shares["h100-resnet50"] == pytest.approx(0.5, abs=0.001)
    assert shares["mi355-retinanet"] == 1.0


def test_without_rounds_the_summary_says_so() -> None:
    assert summary_of([]).answer == "No arm could be measured."


def test_a_ratio_of_one_to_two_decimals_is_quiet() -> None:
    found = summary_of(rounds_of("a", 100.0), rounds_of(f"a{AGAIN}", 99.8))
    assert found.repeated is not None
    assert found.repeated.verdict == "quiet"


def quick_summary(*rounds: list[Round], cut: tuple[str, ...] = ()) -> Summary:
    measured = [one for group in rounds for one in group]
    return summarize(measured, (), Conditions(is_sure=False, quick=True, left_out_for_time=cut))


def test_a_quick_answer_says_how_sure_it_is() -> None:
    several = quick_summary(rounds_of("a", 100, 100, 100), rounds_of("b", 90, 90)).answer
    assert "This run was quick (2 rounds of parts of an epoch, so the intervals are wide)" in several
    single = quick_summary(rounds_of("a", 100, 100), rounds_of("b", 90)).answer
    assert "a single round for some arms, which says nothing about noise: take the order as a hint" in single
    assert "left out" not in single


def test_a_quick_answer_names_what_was_left_out() -> None:
    assert "To keep its time, it left out dali." in quick_summary(rounds_of("a", 100), cut=("dali",)).answer
    many = quick_summary(rounds_of("a", 100), cut=tuple(map(str, range(20)))).answer
    assert "it left out 0, 1, 2, 3, 4, 5, and 14 more." in many


def test_the_answer_names_the_length_of_the_images_and_that_of_the_rule() -> None:
    rounds = [one for group in (rounds_of("a", 5000, 5000),) for one in group]
    found = summarize(rounds, (), Conditions(is_sure=True, image_bytes=41_200))
    assert "It keeps h100-resnet50 busy with these images of 41 kB (its rule's have 115 kB)." in found.answer
    by_name = {each.accelerator: each.sample_bytes for each in found.arms[0].utilization}
    assert by_name["b200-retinanet"] == 322_957


def test_cores_are_cpu_time_over_time() -> None:
    epoch = TEMPLATE.epochs[0].model_copy(update={"cpu_s": 6.0, "seconds": 4.0})
    one = TEMPLATE.model_copy(update={"arm": "a", "round": 1, "epochs": [epoch]})
    cores = summary_of([one]).arms[0].cores
    assert cores is not None
    assert cores.median == 1.5


def test_an_arm_that_ignores_the_number_of_workers_has_no_share_of_bounds() -> None:
    bound = Roofline(name="decode", about="", imgs_per_s=1000, bytes_per_s=None, rounds=[1000], workers=2)
    found = summary_of(rounds_of("turboloader", 5000, 5000), rounds_of("spdl", 500, 500), rooflines=(bound,))
    assert "turboloader is the fastest here: 5,000 images/s (5,000 to 5,000) with all cores" in found.answer
    assert {arm.arm: arm.share_of_roofline for arm in found.arms} == {"turboloader": None, "spdl": 0.5}
    assert {each.workers for each in found.arms[0].utilization} == {None}


@pytest.mark.parametrize(("cpu_s", "is_within"), [(0.0001, True), (10.0, False)])
def test_the_record_says_whether_measuring_took_too_much(cpu_s: float, is_within: bool) -> None:
    found = summary_of(rounds_of("a", 500, 500, instrument_cpu_s=cpu_s), rounds_of(NOTHING, 1e7, 1e7))
    assert found.instrument is not None
    assert found.instrument.within_limit is is_within


def test_peak_memory_is_that_of_the_warm_up_too() -> None:
    """Within an epoch, memory is sampled in warm-ups alone."""
    warm_up, *measured = rounds_of("a", 100.0)
    epoch = warm_up.epochs[0].model_copy(update={"peak_memory_bytes": 10**12})
    found = summary_of([warm_up.model_copy(update={"epochs": [epoch]}), *measured])
    assert found.arms[0].peak_memory_bytes == 10**12


def test_the_answer_names_layout_and_loader_in_plain_words() -> None:
    found = summary_of(rounds_of("stream", 200, 210, 190), rounds_of("remote_one_sample", 20, 21, 19))
    assert "Use tar shards, read by larder.stream." in found.answer
    assert "noise" not in found.answer


def test_the_answer_names_what_noise_doesnt_tell_from_the_fastest() -> None:
    found = summary_of(
        rounds_of("stream", 100, 130, 100, 130),
        rounds_of("litdata_streaming", 110, 105, 110, 105),
        rounds_of("remote_one_sample", 20, 21, 19, 20),
    )
    named = (
        "No slower than noise can explain: litdata_streaming (LitData's chunks, read by LitData's StreamingDataset)."
    )
    assert named in found.answer


def test_the_answer_says_what_to_read_from_the_store_if_local_files_are_fastest() -> None:
    found = summary_of(rounds_of("imagefolder_local", 300, 310), rounds_of("webdataset", 200, 210))
    assert (
        "Use files on a disk, read by torchvision's ImageFolder. From the store, use tar shards, read by "
        in found.answer
    )
    assert "read by webdataset (webdataset): 205 images/s (200 to 210) with 2 workers." in found.answer


def test_a_single_round_has_no_interval() -> None:
    found = summary_of(rounds_of("stream", 458), rounds_of("webdataset", 300), rounds_of(f"stream{AGAIN}", 400))
    assert "stream is the fastest here: 458 images/s (one round) with 2 workers, 1.53 times as fast" in found.answer
    assert "webdataset (one round)." in found.answer
    assert "twice gave a ratio of 1.15 (one round)" in found.answer
    assert " to " not in found.answer.replace("too noisy to be", "")
    assert "A single round can't tell from noise how much slower these are: webdataset." in found.answer
    assert not found.ratios[0].differs, "one round shows no significant difference"
