import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import masking


@pytest.mark.parametrize("schedule", [masking.linear, masking.cosine])
def test_schedules_start_visible_and_end_masked(schedule):
    np.testing.assert_allclose(schedule(jnp.array([0.0, 1.0])), [1.0, 0.0], atol=1e-7)
    assert np.all(np.diff(schedule(jnp.linspace(0.0, 1.0, 11))) < 0)


def test_the_weight_of_the_linear_schedule_is_one_over_t():
    t = jnp.array([0.1, 0.5, 1.0])
    np.testing.assert_allclose(masking.loss_weight(masking.linear, t), 1 / t, rtol=1e-6)


def test_the_weight_of_the_cosine_is_its_slope():
    t, h = np.array([0.2, 0.6]), 1e-3
    slope = (masking.cosine(t + h) - masking.cosine(t - h)) / (2 * h)
    np.testing.assert_allclose(
        masking.loss_weight(masking.cosine, jnp.asarray(t)), -slope / (1 - masking.cosine(t)), rtol=1e-3
    )


def test_dimensions_are_masked_with_the_probability_of_their_time():
    t = jnp.repeat(jnp.array([0.1, 0.7]), 2_000)
    masked = np.asarray(masking.draw_masked(jax.random.key(0), masking.linear, t, 10)).reshape(2, -1)
    np.testing.assert_allclose(masked.mean(axis=1), [0.1, 0.7], atol=5 * 0.5 / np.sqrt(20_000))
    both = masked[1].reshape(-1, 10)
    assert (both[:, 0] & both[:, 1]).mean() == pytest.approx(0.49, abs=5 * 0.5 / np.sqrt(2_000))


def test_counts_are_uniform_and_spread_over_the_batch():
    counts = np.asarray(masking.draw_counts(jax.random.key(0), 30, 10))
    assert collections.Counter(counts.tolist()) == dict.fromkeys(range(1, 11), 3)
    one = [int(masking.draw_counts(jax.random.key(seed), 1, 4)[0]) for seed in range(400)]
    np.testing.assert_allclose(np.bincount(one, minlength=5)[1:] / 400, np.full(4, 0.25), atol=0.1)


def test_the_first_dimensions_of_each_order_are_masked():
    orders = jnp.array([[2, 0, 1], [1, 2, 0]])
    masked = masking.mask_first(jnp.array([1, 2]), orders)
    np.testing.assert_array_equal(masked, [[False, False, True], [False, True, True]])


def test_orders_are_permutations_each_equally_likely():
    orders = np.asarray(masking.draw_orders(jax.random.key(0), 6_000, 3))
    found = collections.Counter(map(tuple, orders.tolist()))
    assert len(found) == 6
    assert max(found.values()) - min(found.values()) < 6 * np.sqrt(1_000)
