import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models import autoregressive, autoregressive_networks
from gm_jax.networks.nade import NADE
from gm_jax.ops import binarization
from gm_jax.plotting import autoregressive as plotting


def test_completions_keep_the_top_half_of_the_data_above_them():
    orders = np.arange(16)[None]
    model = autoregressive.Autoregressive(
        network=autoregressive_networks.masked_network(NADE(16, 5), orders, orders),
        likelihood=autoregressive_networks.bernoulli(lambda key, x: binarization.static(x), levels=2),
        shape=(4, 4, 1),
    )
    rng = np.random.default_rng(2)
    shapes, _ = jax.eval_shape(model.model.init, jax.random.key(0), {"x": jnp.zeros((2, 4, 4, 1), jnp.uint8)})
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (60, 4, 4, 1)), jnp.uint8)
    grid = jax.jit(plotting.grids(model, (4, 4, 1))["completions"])(params, {}, jax.random.key(0), x)
    assert grid.shape == (10, 10, 4, 4, 1)
    np.testing.assert_array_equal(grid[::2].reshape(50, 4, 4, 1), x[:50])
    np.testing.assert_array_equal(grid[1::2, :, :2], grid[::2, :, :2])
    assert np.any(np.asarray(grid[1::2]) != np.asarray(grid[::2]))
