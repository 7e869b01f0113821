import itertools
import random

import numpy as np
import pytest

from larder.stream.order import Batching, Samples, Segment, Shuffle, join_segments, rank_batches, uniform_draws

SIZES = (1, 2, 5, 13, 40, 101, 256)
LAST = ("drop", "pad", "keep")


def shuffle_of(samples: int, window: int = 7, seed: int | None = 3) -> Shuffle:
    cuts = np.random.default_rng(samples).integers(0, samples, max(1, samples // 4))
    return Shuffle(np.unique(np.r_[0, cuts, samples]), window, seed)


def all_batches(shuffle: Shuffle, segments: list[Segment], batching: Batching, epoch: int = 0) -> list[list[Samples]]:
    return [rank_batches(shuffle, epoch, segments, rank, batching) for rank in range(batching.world_size)]


def flat(batches: list[list[Samples]]) -> list[int]:
    return [int(sample) for of_rank in batches for batch in of_rank for sample in batch]


def entropy_of_differences(order: Samples) -> float:
    _, counts = np.unique(np.abs(np.diff(order)), return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())


@pytest.mark.parametrize("samples", SIZES)
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_share_every_sample_out_exactly_once(samples, world_size):
    shuffle = shuffle_of(samples)
    runs = [shuffle.run(5, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(runs)) == list(range(samples))
    assert max(map(len, runs)) - min(map(len, runs)) <= 1


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("samples", SIZES)
def test_batches(samples, last):
    for world_size, batch_size in itertools.product((1, 2, 3, 5), (1, 2, 3, 8)):
        batches = all_batches(shuffle_of(samples), [], Batching(world_size, batch_size, last))
        seen = flat(batches)
        assert len({len(of_rank) for of_rank in batches}) == 1, "a rank with more batches would wait for the others"
        assert all(len(batch) for of_rank in batches for batch in of_rank)
        if last == "drop":
            assert len(seen) == len(set(seen))
            assert samples - len(seen) < world_size * batch_size
        elif last == "pad" or samples < world_size:
            assert set(seen) == set(range(samples))
            assert last != "pad" or all(len(batch) == batch_size for of_rank in batches for batch in of_rank)
        else:
            assert sorted(seen) == list(range(samples))


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("samples", SIZES)
def test_resuming_with_other_ranks_and_batches(samples, last):
    choice = random.Random(samples)
    shuffle = shuffle_of(samples)
    segments: list[Segment] = []
    seen: list[int] = []
    for _ in range(4):
        batching = Batching(choice.choice((1, 2, 3, 5)), choice.choice((1, 2, 3, 8)), last)
        batches = all_batches(shuffle, segments, batching)
        read = choice.randint(0, len(batches[0]))
        seen += flat([of_rank[:read] for of_rank in batches])
        if segments and segments[-1].batching == batching:
            segments[-1] = Segment(batching, segments[-1].batches + read)
        else:
            segments.append(Segment(batching, read))
        continued = all_batches(shuffle, segments, batching)
        assert [[list(batch) for batch in of_rank[read:]] for of_rank in batches] == [
            [list(batch) for batch in of_rank] for of_rank in continued
        ]
    seen += flat(continued)
    if last == "drop":
        assert len(seen) == len(set(seen))
    else:
        assert set(seen) == set(range(samples))


def test_resuming_more_often_than_python_can_recurse():
    shuffle = shuffle_of(20_000)
    segments = [Segment(Batching(7 + number % 2, 1, "keep"), 1) for number in range(1200)]
    left = flat(all_batches(shuffle, segments, Batching(3, 256, "keep")))
    assert len(left) == len(set(left)) == 20_000 - 600 * (7 + 8)


@pytest.mark.parametrize("samples", SIZES)
def test_joined_segments_leave_the_same_samples(samples):
    shuffle, draw = shuffle_of(samples), random.Random(samples)

    def batching() -> Batching:
        return Batching(draw.choice([2, 2, 3]), draw.choice([1, 2, 7]), draw.choice(LAST))  # type: ignore[arg-type]

    for _ in range(50):
        segments = [Segment(batching(), draw.randint(0, 3)) for _ in range(draw.randint(0, 7))]
        now = batching()
        joined = join_segments(samples, segments, now)
        assert len(joined) <= len(segments)
        before, after = (flat(all_batches(shuffle, some, now)) for some in (segments, joined))
        assert before == after


def test_the_order_is_a_pure_function():
    shuffle = shuffle_of(101, window=20)
    assert shuffle.run(2, 0, 1).tolist() == shuffle_of(101, window=20).run(2, 0, 1).tolist()
    assert shuffle.run(2, 0, 1).tolist() != shuffle.run(3, 0, 1).tolist()
    assert shuffle.run(2, 0, 1).tolist() != shuffle_of(101, window=20, seed=4).run(2, 0, 1).tolist()
    # Fixed: another version must not change the order of a training that it resumes, or it has another state version.
    assert Shuffle(np.arange(0, 13, 3), 4, 1).run(0, 0, 1).tolist() == [3, 4, 5, 6, 8, 7, 10, 9, 11, 0, 1, 2]


def test_without_a_seed_the_order_is_that_of_the_shards():
    assert shuffle_of(40, seed=None).run(1, 1, 2).tolist() == list(range(20, 40))


@pytest.mark.parametrize("window", [0, 1, 30, 1000])
def test_no_sample_moves_farther_than_the_window(window):
    shuffle = Shuffle(np.arange(0, 1001, 10), window, 1)
    line = Shuffle(shuffle.block_starts, 0, 1).run(0, 0, 1)
    place = {sample: at for at, sample in enumerate(line.tolist())}
    moved = [abs(at - place[sample]) for at, sample in enumerate(shuffle.run(0, 0, 1).tolist())]
    assert max(moved) <= window


@pytest.mark.parametrize("samples", [9_866, 100_000])
def test_it_shuffles_nearly_as_well_as_a_permutation(samples):
    # 100 samples of 40 KB in a block, 64 blocks in the window
    order = Shuffle(np.append(np.arange(0, samples, 100), samples), 6_400, 0).run(0, 0, 1)
    permutation = np.random.default_rng(0).permutation(samples)
    assert entropy_of_differences(order) >= 0.98 * entropy_of_differences(permutation)


def test_the_first_batch_needs_few_blocks():
    """It waits for all blocks that it has samples of."""
    shuffle = Shuffle(np.arange(0, 10_001, 100), 6_400, 0)
    [first, *later] = rank_batches(shuffle, 0, [], 0, Batching(1, 256, "keep"))
    assert len(np.unique(first // 100)) < 15
    assert len(np.unique(later[19] // 100)) > 40


def test_draws_are_uniform_and_depend_on_the_sample_alone():
    samples = np.arange(20_000)
    draws = uniform_draws(1, 2, samples, 3)
    assert draws.shape == (20_000, 3)
    assert 0 <= draws.min() < 0.001
    assert 0.999 < draws.max() < 1
    assert np.allclose(draws.mean(axis=0), 0.5, atol=0.01)
    assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.03
    assert (uniform_draws(1, 2, samples[5:9], 3) == draws[5:9]).all()
    assert (uniform_draws(1, 3, samples, 3) != draws).all()
