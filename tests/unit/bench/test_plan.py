import pytest

from larder.errors import ConfigurationError
from services.bench.bench import plan


@pytest.mark.parametrize(
    ("images", "flags", "expected"),
    [
        pytest.param(640, [], 10, id="a-whole-epoch"),
        pytest.param(641, [], 11, id="its-last-batch-is-short"),
        pytest.param(640, ["--batches", "4"], 4, id="as-many-as-asked"),
        pytest.param(640, ["--batches", "10", "--warmup-batches", "10"], 10, id="all-that-there-are"),
        pytest.param(256, [], 4, id="fewer-than-the-warm-up"),
        pytest.param(129, ["--warmup-batches", "0"], 3, id="the-fewest"),
    ],
)
def test_batches_to_measure(make_settings, images, flags, expected):
    assert plan(images, make_settings(*flags)) == expected


@pytest.mark.parametrize(
    ("images", "flags", "named"),
    [
        pytest.param(128, ["--warmup-batches", "0"], ["LARDER_BATCH_SIZE=64", "has 2 (128 images"], id="short-epoch"),
        pytest.param(0, ["--warmup-batches", "0"], ["LARDER_BATCH_SIZE=64", "has 0 (0 images"], id="no-images"),
        pytest.param(640, ["--batches", "11"], ["LARDER_BENCH_BATCHES=11", "has 10"], id="more-than-an-epoch"),
        pytest.param(64, ["--batches", "2"], ["2 faults", "BATCH_SIZE", "BENCH_BATCHES"], id="all-at-once"),
    ],
)
def test_too_short_an_epoch_names_the_numbers(make_settings, images, flags, named):
    with pytest.raises(ConfigurationError) as caught:
        plan(images, make_settings(*flags))
    assert all(part in str(caught.value) for part in named), caught.value
