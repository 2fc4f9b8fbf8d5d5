"""The consistency loss: zero along the exact flow, weighed by the gap, and with a target that does not move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.losses import consistency

RNG = np.random.default_rng(0)


def test_the_loss_is_the_pseudo_huber_distance_over_the_gap(x64):
    x, y = (jnp.asarray(RNG.normal(size=(4, 3, 2))) for _ in range(2))
    gap, c = np.array([0.006, 0.2, 1.0, 22.0]), 0.1 * np.sqrt(6)
    expected = (np.sqrt(np.sum((np.asarray(x) - np.asarray(y)) ** 2, axis=(1, 2)) + c**2) - c) / gap
    np.testing.assert_allclose(consistency.consistency_loss(x, y, jnp.asarray(gap), huber=0.1), expected, rtol=1e-12)


def test_the_end_of_the_exact_flow_has_no_loss(x64):
    # Data N(0, c^2) on EDM's path: the flow keeps x / sqrt(c^2 + t^2).
    def end(x, t):
        return x * np.sqrt((0.25 + 0.002**2) / (0.25 + t**2))

    x_t, t, s = jnp.asarray(RNG.normal(size=(5, 2))) * 3.0, 3.0, 1.4
    x_s, gap = x_t * np.sqrt((0.25 + s**2) / (0.25 + t**2)), jnp.full(5, t - s)
    np.testing.assert_allclose(consistency.consistency_loss(end(x_t, t), end(x_s, s), gap), np.zeros(5), atol=1e-12)
    assert (np.asarray(consistency.consistency_loss(end(x_t, t), end(x_t, s), gap)) > 0.01).all()


def test_the_gradient_moves_the_later_prediction_alone_and_is_at_most_one_over_the_gap_long():
    x, y, gap = jnp.array([[3.0, 4.0], [1e-6, 0.0]]), jnp.zeros((2, 2)), jnp.array([0.5, 1.0])
    at_x, at_y = jax.grad(lambda x, y: jnp.sum(consistency.consistency_loss(x, y, gap)), argnums=(0, 1))(x, y)
    np.testing.assert_array_equal(at_y, np.zeros((2, 2)))
    np.testing.assert_allclose(at_x[0], [1.2, 1.6], rtol=1e-5)
    assert 0.0 < float(at_x[1, 0]) < 0.01
    at_equal = jax.grad(lambda x: jnp.sum(consistency.consistency_loss(x, x + 0.0, gap)))(x)
    assert np.isfinite(at_equal).all()


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(AssertionError):
        consistency.consistency_loss(jnp.ones((3, 2)), jnp.ones((3, 1)), jnp.ones(3))
    with pytest.raises(AssertionError):
        consistency.consistency_loss(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones((3, 1)))
    with pytest.raises(AssertionError, match="event axis"):
        consistency.consistency_loss(jnp.ones(3), jnp.ones(3), jnp.ones(3))
    with pytest.raises(ValueError, match="huber must be above 0"):
        consistency.consistency_loss(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones(3), huber=0.0)
