"""Levels become a density whose measure is theirs, and come back."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models import energy_space


def test_levels_come_back_and_fill_the_range_evenly():
    space = energy_space.images(levels=5)
    x = jnp.tile(jnp.arange(5, dtype=jnp.uint8)[:, None], (1, 2_000))
    h = space.prepare(jax.random.key(0), x)
    np.testing.assert_array_equal(space.to_data(h), x)
    assert space.to_data(h).dtype == jnp.uint8
    np.testing.assert_allclose(jnp.mean(h, axis=1), np.linspace(-0.8, 0.8, 5), atol=0.02)
    np.testing.assert_allclose(jnp.std(h, axis=1), 0.4 / np.sqrt(12), rtol=0.05)
    np.testing.assert_array_equal(space.to_data(jnp.array([[-3.0, 3.0]])), [[0, 4]])


def test_the_uniform_density_has_the_bits_of_the_levels():
    # On [-1, 1]^D it is 2^-D, and the probability of each level is 1/5.
    space = energy_space.images(levels=5)
    np.testing.assert_allclose(-3 * np.log(2.0) + space.log_det((3,)), -3 * np.log(5.0), rtol=1e-12)
    assert (space.measure, space.side) == ("5 levels", None)


def test_points_stay():
    space, x = energy_space.points(), jnp.array([[1.5, -2.0]])
    np.testing.assert_array_equal(space.prepare(jax.random.key(0), x), x)
    np.testing.assert_array_equal(space.to_data(x), x)
    assert (space.log_det((2,)), space.measure, space.side) == (0.0, "continuous", "R")
