import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.models.autoregressive_networks import bernoulli, categorical
from gm_jax.models.masked_diffusion import MaskedDiffusion
from gm_jax.networks.masked_transformer import MaskedTransformer
from gm_jax.ops import binarization
from gm_jax.plotting import masked


def picture(likelihood, shape, *, levels, outputs):
    network = MaskedTransformer(shape, levels, outputs, features=4, heads=1, layers=1)
    model = MaskedDiffusion(network=network, likelihood=likelihood, shape=shape)
    x = jax.random.randint(jax.random.key(0), (12, *shape), 0, 17).astype(jnp.uint8)
    params, _ = model.init(jax.random.key(1), {"x": x})
    return x, jax.jit(masked.grids(model, shape, levels=17)["completions"])(params, {}, jax.random.key(2), x)


@pytest.mark.slow
def test_given_pixels_are_those_of_the_data_and_the_others_are_drawn():
    x, grid = picture(categorical(levels=17), (4, 4, 1), levels=17, outputs=17)
    assert grid.rows == ("data", "first half given", "a quarter given", "every other row given")
    assert grid.examples.shape == (4, 10, 4, 4, 1)
    np.testing.assert_array_equal(grid.examples[0], x[:10])
    np.testing.assert_array_equal(grid.given.sum(axis=(1, 2, 3)), [0, 8, 4, 8])
    for row, given in zip(grid.examples[1:], grid.given[1:], strict=True):
        np.testing.assert_array_equal(np.where(given, row, 0), np.where(given, x[:10], 0))
        assert (np.where(given, 0, row) != np.where(given, 0, x[:10])).any()


def test_a_model_of_black_and_white_shows_what_it_sees():
    draw = lambda key, x: binarization.dynamic(x, jax.random.uniform(key, x.shape), levels=17)  # noqa: E731
    likelihood = bernoulli(draw, levels=17)
    _, grid = picture(likelihood, (6,), levels=2, outputs=1)
    assert grid.rows == ("data", "as the model sees it", "first half given", "a quarter given")
    seen = grid.examples[1]
    assert set(np.unique(seen)) == {0, 16}
    np.testing.assert_array_equal(grid.examples[2][:, :3], seen[:, :3])
