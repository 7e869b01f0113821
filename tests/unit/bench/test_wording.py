"""Errors of loaders in terms of a stage."""

import pytest

from larder.bench.arm_errors import map_arm_errors
from larder.bench.wording import name_settings_in_errors, next_steps_for
from larder.errors import ConfigurationError, InputError, LarderError, StorageError
from larder.loaders import hints
from larder.next_step import CREATED_BY
from services.bench.settings import BenchSettings


@pytest.mark.parametrize(
    ("error", "what", "next_step"),
    [
        pytest.param(
            ConfigurationError("split='x': there is none", next_step="set it"),
            "FOOD11_SPLIT='x': there is none",
            "set it",
            id="an-argument",
        ),
        pytest.param(
            ConfigurationError.of_faults(["batch_size=9: b", "batches=7: c"], next_step="n"),
            "the configuration has 2 faults:\n  - LARDER_BATCH_SIZE=9: b\n  - LARDER_BENCH_BATCHES=7: c",
            "n",
            id="a-list",
        ),
        pytest.param(
            StorageError("cache_dir='/x' is full", next_step="set `max_cache_size` or `workers` lower; see `dmesg`"),
            "LARDER_CACHE_DIR='/x' is full",
            "set LARDER_MAX_CACHE_SIZE or LARDER_WORKERS lower; see `dmesg`",
            id="a-next-step",
        ),
        pytest.param(
            InputError("s3://b/split=x/a.jpg is gone", next_step=hints.RESTORE),
            "s3://b/split=x/a.jpg is gone",
            "run `shard` and `load shards`, which restores it",
            id="a-path-is-left-alone",
        ),
    ],
)
def test_arguments_become_settings(error: LarderError, what: str, next_step: str) -> None:
    with (
        pytest.raises(type(error)) as caught,
        name_settings_in_errors(BenchSettings, next_steps_for(CREATED_BY["webdataset"])),
    ):
        raise error
    assert (caught.value.what, caught.value.next_step) == (what, next_step)


@pytest.mark.parametrize("step", [value for name, value in vars(hints).items() if name.isupper()])
def test_every_remedy_has_words_of_bench(step: str) -> None:
    with pytest.raises(InputError) as caught, map_arm_errors(BenchSettings, CREATED_BY["webdataset"]):
        raise InputError("x", next_step=step)
    assert any(word in caught.value.next_step for word in ("`", "LARDER_")), caught.value.next_step


def test_a_tree_is_made_anew_from_its_own_source() -> None:
    with pytest.raises(InputError) as caught, map_arm_errors(BenchSettings, CREATED_BY["tree"]):
        raise InputError("x", next_step=hints.CREATE_AGAIN)
    assert "LARDER_SOURCE" in caught.value.next_step
