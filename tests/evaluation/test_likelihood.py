"""The mean over a split against numpy in float64: every example counts once, for any batch size."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.data import pipeline
from gm_jax.evaluation import likelihood
from gm_jax.types import Likelihood

VALUES = np.random.default_rng(0).normal(loc=-500.0, scale=30.0, size=23).astype(np.float32)


def read_off(kind="exact", measure="binary", settings=()):
    """A log_prob that reads each example's value off the example."""
    return lambda index, x: Likelihood(jnp.asarray(x[:, 0]), kind, measure, settings)


def batches(values=VALUES, batch_size=5):
    return pipeline.eval_batches({"x": np.asarray(values)[:, None]}, batch_size)


@pytest.mark.parametrize("batch_size", [1, 5, 22, 23, 24, 100])
def test_every_example_counts_once_for_any_batch_size(batch_size):
    summary = likelihood.evaluate(read_off(), batches(batch_size=batch_size))
    exact = VALUES.astype(np.float64)
    assert summary.num_examples == 23
    assert summary.mean == pytest.approx(exact.mean(), rel=1e-14)
    assert summary.standard_error == pytest.approx(exact.std(ddof=1) / math.sqrt(23), rel=1e-12)


def test_padding_does_not_count_even_if_it_is_nan():
    x = np.array([[1.0], [3.0], [np.nan], [-np.inf]], np.float32)
    summary = likelihood.evaluate(read_off(), [({"x": x}, np.array([True, True, False, False]))])
    assert summary == (2.0, 1.0, 2, "exact", "binary", (), 0, None)


def test_masked_examples_may_be_anywhere_in_the_batch():
    x = np.array([[9.0], [1.0], [9.0], [3.0]], np.float32)
    summary = likelihood.evaluate(read_off(), [({"x": x}, np.array([False, True, False, True]))])
    assert (summary.mean, summary.num_examples) == (2.0, 2)


def test_the_sum_is_taken_in_float64():
    # 2**24 + 1 is not a float32: in a float32 sum each 1 is lost.
    values = np.array([2**24] + [1.0] * 9, np.float32)
    summary = likelihood.evaluate(read_off(), batches(values, batch_size=4))
    assert summary.mean == (2**24 + 9) / 10


def test_the_errors_of_probes_add_up_in_squares_without_padding():
    errors = np.arange(1.0, 8.0)

    def log_prob(index, x):
        return Likelihood(jnp.asarray(x[:, 0]), "estimate", "continuous", (), jnp.asarray(x[:, 1]))

    split = {"x": np.stack([np.zeros(7), errors], axis=1).astype(np.float32)}
    summary = likelihood.evaluate(log_prob, pipeline.eval_batches(split, 3))
    assert summary.probe_error == pytest.approx(math.sqrt(np.sum(errors**2)) / 7, rel=1e-12)


def test_log_prob_gets_the_index_of_the_batch_and_x_unchanged():
    seen = []

    def log_prob(index, x):
        seen.append((index, x.dtype, x.shape))
        return Likelihood(np.zeros(len(x), np.float32), "exact", "binary")

    split = {"x": np.zeros((7, 2, 2, 1), np.uint8), "label": np.zeros(7, np.int32)}
    likelihood.evaluate(log_prob, pipeline.eval_batches(split, 3))
    assert seen == [(index, np.uint8, (3, 2, 2, 1)) for index in range(3)]


def test_the_standard_error_by_hand_and_for_one_example():
    # 1, 2, 3, 4: variance 5/3 with n - 1, so the mean's standard error is sqrt(5/3) / 2.
    summary = likelihood.evaluate(read_off(), batches([1.0, 2.0, 3.0, 4.0], batch_size=3))
    assert summary.mean == 2.5
    assert summary.standard_error == pytest.approx(math.sqrt(5 / 12), rel=1e-14)
    alone = likelihood.evaluate(read_off(), batches([-7.0], batch_size=3))
    assert (alone.mean, alone.num_examples) == (-7.0, 1)
    assert math.isnan(alone.standard_error)


@pytest.mark.parametrize("kind", ["exact", "lower_bound", "upper_bound", "estimate"])
def test_kind_measure_and_settings_stay_with_the_number(kind):
    summary = likelihood.evaluate(read_off(kind, "17 levels", (("K", 500),)), batches())
    assert (summary.kind, summary.measure, summary.settings) == (kind, "17 levels", (("K", 500),))


@pytest.mark.parametrize(
    "kinds",
    [
        [("exact", "binary", ()), ("lower_bound", "binary", ())],
        [("exact", "binary", ()), ("exact", "continuous", ())],
        [("lower_bound", "binary", (("K", 5),)), ("lower_bound", "binary", (("K", 50),))],
        [("lower_bound", "binary", (("K", 5),)), ("lower_bound", "binary", (("K", "five"),))],
    ],
)
def test_a_kind_or_measure_that_changes_between_batches_is_refused(kinds):
    def log_prob(index, x):
        return Likelihood(np.zeros(len(x), np.float32), *kinds[index == 3])

    with pytest.raises(ValueError, match="kinds"):
        likelihood.evaluate(log_prob, batches())


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="0 examples"):
        likelihood.evaluate(read_off(), [])
    with pytest.raises(ValueError, match="0 examples"):
        likelihood.evaluate(read_off(), [({"x": np.zeros((2, 1), np.float32)}, np.zeros(2, bool))])


@pytest.mark.parametrize("shape", [(), (5, 1), (5, 3), (1,), (3, 5)])
def test_anything_but_one_value_per_example_is_refused(shape):
    # [B, D] would count each example D times.
    with pytest.raises(ValueError, match="one log-probability per example"):
        likelihood.evaluate(lambda index, x: Likelihood(np.zeros(shape, np.float32), "exact", "binary"), batches())


@pytest.mark.parametrize("bad", [-math.inf, math.nan])
def test_a_value_that_is_not_finite_shows_in_the_mean(bad):
    summary = likelihood.evaluate(read_off(), batches([-1.0, bad, -3.0], batch_size=2))
    np.testing.assert_equal(summary.mean, bad)
    assert math.isnan(summary.standard_error)
    assert summary.num_examples == 3
