"""Batches as functions of (seed, step)."""

import hashlib

import numpy as np
import pytest

from gm_jax.data import pipeline
from gm_jax.errors import UserError

SIZES = [(10, 1), (10, 3), (10, 10), (7, 4), (12, 4), (101, 32)]  # (examples, batch)


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    return {
        "x": rng.integers(0, 256, (101, 4, 4, 1), np.uint8),
        "label": rng.integers(0, 10, 101, np.int32),
    }


def indices_of(num_examples, batch_size, seed, step):
    """The examples of one training batch: a split whose arrays are the indices themselves."""
    return pipeline.train_batch({"index": np.arange(num_examples)}, batch_size, seed, step)["index"]


def endless(num_examples, batch_size, seed, length):
    """The first `length` positions of the endless order, batch by batch."""
    steps = -(-length // batch_size)
    batches = [indices_of(num_examples, batch_size, seed, step) for step in range(steps)]
    return np.concatenate(batches)[:length]


@pytest.mark.parametrize(("num_examples", "batch_size"), SIZES)
def test_every_epoch_covers_each_example_exactly_once(num_examples, batch_size):
    order = endless(num_examples, batch_size, seed=3, length=5 * num_examples).reshape(5, num_examples)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(num_examples), (5, 1)))


def test_epochs_and_seeds_have_different_orders():
    orders = [pipeline.permutation(50, seed, epoch) for seed in (0, 1, 2**64 - 1) for epoch in (0, 1)]
    assert len({order.tobytes() for order in orders}) == len(orders)


def test_the_order_does_not_depend_on_the_batch_size():
    np.testing.assert_array_equal(endless(101, 32, 5, 400), endless(101, 7, 5, 400))


def test_a_batch_is_a_pure_function_of_seed_and_step(split):
    later = pipeline.train_batch(split, 32, 0, 40)
    for step in (3, 0, 999):
        pipeline.train_batch(split, 32, 0, step)
    pipeline.permutation.cache_clear()
    again = pipeline.train_batch(split, 32, 0, 40)
    np.testing.assert_array_equal(later["x"], again["x"])
    np.testing.assert_array_equal(later["label"], again["label"])


def test_a_batch_holds_the_same_rows_of_every_array(split):
    batch = pipeline.train_batch(split, 32, 9, 6)
    indices = indices_of(101, 32, 9, 6)
    assert batch["x"].dtype == np.uint8
    assert batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["x"], split["x"][indices])
    np.testing.assert_array_equal(batch["label"], split["label"][indices])


def test_a_batch_does_not_share_memory_with_the_data(split):
    assert not np.shares_memory(pipeline.train_batch(split, 32, 0, 0)["x"], split["x"])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 32])
def test_shards_of_any_count_concatenate_to_the_global_batch(split, count):
    whole = pipeline.train_batch(split, 32, 1, 4)
    shards = [pipeline.train_batch(split, 32, 1, 4, shard=(index, count)) for index in range(count)]
    assert max(len(shard["x"]) for shard in shards) - min(len(shard["x"]) for shard in shards) <= 1
    for name in whole:
        np.testing.assert_array_equal(np.concatenate([shard[name] for shard in shards]), whole[name])


@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_stacked_batches_are_the_individual_ones(split, shard):
    stacked = pipeline.train_batches(split, 32, 1, 2, 5, shard=shard)
    for row in range(5):
        batch = pipeline.train_batch(split, 32, 1, 2 + row, shard=shard)
        for name in split:
            np.testing.assert_array_equal(stacked[name][row], batch[name])


@pytest.mark.parametrize("batch_size", [1, 10, 100, 101, 128])
def test_evaluation_counts_every_example_once_in_batches_of_one_shape(split, batch_size):
    batches = list(pipeline.eval_batches(split, batch_size))
    assert {batch["x"].shape for batch, _ in batches} == {(batch_size, 4, 4, 1)}
    for _, mask in batches:
        assert mask.dtype == bool
        assert mask.shape == (batch_size,)
    counted = np.concatenate([batch["x"][mask] for batch, mask in batches])
    np.testing.assert_array_equal(counted, split["x"])
    assert sum(mask.sum() for _, mask in batches) == 101


def test_positions_beyond_int32_do_not_overflow():
    indices = indices_of(101, 32, 0, np.int32(2**31 - 1))
    assert indices.shape == (32,)


@pytest.mark.parametrize("batch_size", [0, -1, 102])
def test_a_batch_size_larger_than_the_split_is_a_user_error(split, batch_size):
    with pytest.raises(UserError, match=f"batch size is {batch_size}.*101 examples"):
        pipeline.train_batch(split, batch_size, 0, 0)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_an_evaluation_batch_size_below_one_is_a_user_error(split, batch_size):
    with pytest.raises(UserError, match="at least 1"):
        pipeline.eval_batches(split, batch_size)  # before the first batch is requested


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_a_user_error(split, seed):
    with pytest.raises(UserError, match="seed"):
        pipeline.train_batch(split, 32, seed, 0)


def test_a_negative_step_is_refused(split):
    with pytest.raises(ValueError, match="first_step >= 0"):
        pipeline.train_batch(split, 32, 0, -1)


def test_a_count_of_zero_is_refused(split):
    with pytest.raises(ValueError, match="count >= 1"):
        pipeline.train_batches(split, 32, 0, 0, 0)


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_that_does_not_exist_is_refused(split, shard):
    with pytest.raises(ValueError, match="shard"):
        pipeline.train_batch(split, 32, 0, 0, shard=shard)


def test_arrays_of_different_lengths_are_refused(split):
    with pytest.raises(ValueError, match="equally long"):
        pipeline.train_batch({**split, "label": split["label"][1:]}, 32, 0, 0)
    with pytest.raises(ValueError, match="equally long"):
        pipeline.eval_batches({**split, "label": split["label"][1:]}, 32)


def test_the_order_is_that_of_the_published_runs():
    # A change here changes the run of every seed and breaks every resume: it belongs in the release notes.
    stacked = [indices_of(60_000, 256, seed, step) for seed, step in ((0, 0), (0, 233), (0, 234), (7, 999))]
    digest = hashlib.sha256(np.concatenate(stacked).astype("<i8").tobytes()).hexdigest()
    assert digest == "c77035e0b20030c40a95f87f4c7c4eb3ef7f9abb6e0f5185ed71c0c062851107"
    assert indices_of(10, 10, 0, 0).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]


# Mirrored images.


def flips(num_examples, batch_size, seed, first_step, count, shard=(0, 1)):
    """Which images of some batches are mirrored: [count, B], of images that are not symmetric."""
    x = np.arange(num_examples * 6, dtype=np.int64).reshape(num_examples, 1, 3, 2)
    arguments = ({"x": x}, batch_size, seed, first_step, count, shard)
    plain, mirrored = (pipeline.train_batches(*arguments, flip=flip)["x"] for flip in (False, True))
    is_same = (mirrored == plain).all((2, 3, 4))
    np.testing.assert_array_equal(np.where(is_same[..., None, None, None], plain, plain[:, :, :, ::-1]), mirrored)
    return ~is_same


def test_half_of_the_images_are_mirrored_and_nothing_else_changes():
    found = flips(1_000, 100, 3, 0, 100)
    assert abs(found.mean() - 0.5) < 4 * 0.5 / np.sqrt(10_000)
    by_epoch = found.reshape(10, 1_000)
    assert len({row.tobytes() for row in by_epoch}) == 10
    assert abs(np.corrcoef(by_epoch)[np.triu_indices(10, 1)]).max() < 4 / np.sqrt(1_000)


def test_mirroring_is_a_pure_function_of_seed_and_step():
    whole = flips(37, 8, 5, 0, 20)
    pipeline.mirrored.cache_clear()
    np.testing.assert_array_equal(np.concatenate([flips(37, 8, 5, step, 1) for step in range(20)]), whole)
    np.testing.assert_array_equal(flips(37, 16, 5, 0, 10).reshape(-1), whole.reshape(-1))
    assert (flips(37, 8, 6, 0, 20) != whole).any()


@pytest.mark.parametrize("count", [2, 3, 8])
def test_shards_of_any_count_are_mirrored_as_the_global_batch(count):
    parts = [flips(37, 8, 5, 3, 4, shard=(index, count)) for index in range(count)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), flips(37, 8, 5, 3, 4))


def test_mirroring_leaves_the_data_and_the_labels_alone(split):
    before = split["x"].copy()
    batches = pipeline.train_batches(split, 32, 0, 0, 5, flip=True)
    np.testing.assert_array_equal(split["x"], before)
    np.testing.assert_array_equal(batches["label"], pipeline.train_batches(split, 32, 0, 0, 5)["label"])


def test_the_mirrored_positions_are_these():
    # A change here changes the runs of every preset with flips: it belongs in the release notes.
    digest = hashlib.sha256(np.concatenate([pipeline.mirrored(50_000, 0, epoch) for epoch in range(3)]).tobytes())
    assert digest.hexdigest() == "3d48c06ba085110b052ecda73931fc3fab1d172d9d223e9aff34ad1b5ebf888f"
