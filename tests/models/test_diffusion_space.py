import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.models import diffusion_space


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_come_back_from_minus_one_to_one(levels):
    space, x = diffusion_space.pixels(levels=levels), jnp.arange(levels).astype(jnp.uint8)[None]
    x_0 = space.prepare(x)
    np.testing.assert_allclose(x_0, np.linspace(-1, 1, levels)[None], atol=1e-6)
    back = space.to_data(x_0)
    assert back.dtype == jnp.uint8
    np.testing.assert_array_equal(back, x)
    np.testing.assert_array_equal(space.to_data(jnp.asarray([[-7.0, 7.0]])), [[0, levels - 1]])


def test_the_decoder_of_pixels_sums_to_one_over_all_images():
    space = diffusion_space.pixels(levels=3)
    every = jnp.asarray(list(itertools.product(range(3), repeat=2)), jnp.uint8)
    x0_hat = jnp.broadcast_to(jnp.asarray([[0.3, -1.4]]), every.shape)
    for log_var in (-6.0, 1.0):
        mass = np.exp(-np.asarray(space.decoder_nll(every, x0_hat, jnp.asarray(log_var)), np.float64))
        np.testing.assert_allclose(mass.sum(), 1.0, rtol=1e-5)


def test_the_decoder_of_points_is_a_normal_density():
    space, x = diffusion_space.points(), jnp.asarray([[1.0, -2.0], [0.5, 0.0]])
    x0_hat, std = jnp.asarray([[0.9, -2.0], [0.5, 0.3]]), 0.2
    expected = -stats.norm.logpdf(x, x0_hat, std).sum(axis=1)
    np.testing.assert_allclose(space.decoder_nll(x, x0_hat, jnp.asarray(2 * np.log(std))), expected, rtol=1e-5)
    np.testing.assert_array_equal(space.to_data(space.prepare(x)), x)


def test_a_prediction_far_from_its_level_has_a_finite_nll_and_gradient():
    space, x = diffusion_space.pixels(levels=17), jnp.asarray([[0, 8, 16]], jnp.uint8)
    nll = lambda x0_hat: space.decoder_nll(x, x0_hat, jnp.asarray(-9.0))[0]  # noqa: E731
    value, gradient = jax.value_and_grad(nll)(jnp.asarray([[1.0, -1.0, -1.0]]))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
