"""Holds the moving average of the parameters to its recursion in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.training import ema


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_the_average_follows_its_recursion(decay):
    params = np.random.default_rng(0).normal(size=(15, 4)).astype(np.float32)
    average, expected = {"w": jnp.asarray(params[0])}, params[0].astype(np.float64)
    for step, new in enumerate(params):
        average = ema.update(average, {"w": jnp.asarray(new)}, num_updates=jnp.int32(step), decay=decay)
        weight = min(decay, (1 + step) / (10 + step))
        expected = weight * expected + (1 - weight) * new
        np.testing.assert_allclose(average["w"], expected, rtol=1e-5, atol=1e-6)


def test_the_first_update_forgets_most_of_the_initial_parameters():
    average = ema.update(jnp.zeros(3), jnp.ones(3), num_updates=jnp.int32(0), decay=0.999)
    np.testing.assert_allclose(average, np.full(3, 0.9), rtol=1e-6)


def test_the_average_keeps_its_dtype():
    average = ema.update(jnp.ones(3, jnp.bfloat16), jnp.ones(3, jnp.bfloat16), num_updates=jnp.int32(0), decay=0.9)
    assert average.dtype == jnp.bfloat16
