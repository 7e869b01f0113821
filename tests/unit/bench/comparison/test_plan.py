"""The order of rounds, and settings of a comparison."""

from __future__ import annotations

import pytest

from larder.bench.comparison.plan import ROOFLINE_ROUNDS, ROOFLINES, plan_entries, plan_round
from larder.bench.comparison.settings import QUICK_ROUNDS, ComparisonSettings
from larder.bench.summarize import AGAIN, NOTHING
from larder.errors import ConfigurationError

ENTRIES = plan_entries(["imagefolder_local", "stream", "webdataset"], [1, 2], ROOFLINES)


def settings_of(*flags: str, **environ: str) -> ComparisonSettings:
    return ComparisonSettings.load("compare", flags, environ)


def test_each_round_has_every_arm_with_every_number_of_workers_and_one_arm_again() -> None:
    runs = plan_round(ENTRIES, 1, seed=0)
    arms = sorted((run.entry.name, run.entry.workers) for run in runs if run.entry.kind == "arm")
    expected = [(name, workers) for name in ("imagefolder_local", "stream", "webdataset") for workers in (1, 2)]
    assert arms == sorted([*expected, (f"stream{AGAIN}", 1), (NOTHING, 1)])
    assert {run.entry.name for run in runs if run.entry.kind == "roofline"} == set(ROOFLINES)


def test_rounds_are_in_other_orders_which_the_seed_determines() -> None:
    orders = [[run.entry for run in plan_round(ENTRIES, number, seed=0)] for number in (1, 2, 3)]
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] == [run.entry for run in plan_round(ENTRIES, 1, seed=0)]
    assert orders[0] != [run.entry for run in plan_round(ENTRIES, 1, seed=1)]


def test_positions_are_unique_and_depend_on_the_round_alone() -> None:
    runs = [run for number in range(6) for run in plan_round(ENTRIES, number, seed=0)]
    positions = [run.position for run in runs]
    assert positions == sorted(set(positions))


@pytest.mark.parametrize(("number", "expected"), [(0, 0), (1, 5), (ROOFLINE_ROUNDS, 5), (ROOFLINE_ROUNDS + 1, 0)])
def test_upper_bounds_are_measured_in_some_rounds(number: int, expected: int) -> None:
    assert sum(run.entry.kind == "roofline" for run in plan_round(ENTRIES, number, seed=0)) == expected


@pytest.mark.parametrize(
    ("flags", "environ", "counts"),
    [
        (["--workers=4"], {}, [4]),
        (["--workers=1,2,4"], {}, [1, 2, 4]),
        (["--sweep=4,1"], {}, [1, 4]),
        ([], {"LARDER_WORKERS": "2,3"}, [2, 3]),
    ],
    ids=["one number", "several numbers", "a sweep", "the environment"],
)
def test_numbers_of_workers(flags: list[str], environ: dict[str, str], counts: list[int]) -> None:
    assert settings_of(*flags, **environ).worker_counts == counts


def test_an_arm_that_is_named_twice_runs_once() -> None:
    assert settings_of("--arms=stream,webdataset,stream").chosen_arms == ["stream", "webdataset"]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--workers=1,two", "--sweep"),
        ("--sweep=0", "numbers from 1 to 1,024"),
        ("--arms=stream,nope", "unknown arm 'nope'; must be some of: dali, "),
        ("--arms=streem", "unknown arm 'streem'; did you mean stream?"),
        ("--device=cude", "must be 'auto', 'cpu' or 'cuda'; did you mean cuda?"),
        ("--rounds=0", "must be 1 or more"),
        ("--shards=http://store/shards", "must be s3://bucket/prefix, or a path"),
    ],
)
def test_bad_settings_are_refused(flag: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        settings_of(flag)
    assert message.replace("--sweep", "numbers from 1") in refused.value.what


def test_a_quick_comparison_has_few_rounds() -> None:
    assert settings_of("--quick").measured_rounds == QUICK_ROUNDS
    assert settings_of().measured_rounds == 5


def test_the_record_has_the_settings_without_keys() -> None:
    settings = settings_of(AWS_ACCESS_KEY_ID="a-key", AWS_SECRET_ACCESS_KEY="a-secret")
    assert not {"a-key", "a-secret"} & {str(value) for value in settings.compared().values()}
    assert settings.compared()["rounds"] == 5


def test_an_arm_that_ignores_the_number_of_workers_runs_once() -> None:
    entries = plan_entries(["turboloader", "spdl"], [1, 2, 4], [])
    assert [entry.workers for entry in entries if entry.name == "turboloader"] == [4]
    alone = plan_entries(["turboloader"], [1, 2], [])
    assert {entry.workers for entry in alone if entry.name.startswith("turboloader")} == {2}
