import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.models import autoregressive, autoregressive_networks
from gm_jax.networks.nade import NADE
from gm_jax.ops import binarization
from gm_jax.plotting import autoregressive as plotting


def random_nade(binarize, levels):
    orders = np.arange(16)[None]
    model = autoregressive.Autoregressive(
        network=autoregressive_networks.masked_network(NADE(16, 5), orders, orders),
        likelihood=autoregressive_networks.bernoulli(binarize, levels=levels),
        shape=(4, 4, 1),
    )
    rng = np.random.default_rng(2)
    shapes, _ = jax.eval_shape(model.model.init, jax.random.key(0), {"x": jnp.zeros((2, 4, 4, 1), jnp.uint8)})
    return model, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)


@pytest.mark.parametrize("levels", [2, 17])
def test_completions_keep_the_top_half_of_what_the_model_sees_above_them(levels):
    def binarize(key, x):
        return (
            binarization.static(x)
            if levels == 2
            else binarization.dynamic(x, jax.random.uniform(key, x.shape), levels=levels)
        )

    model, params = random_nade(binarize, levels)
    x = jnp.asarray(np.random.default_rng(0).integers(0, levels, (60, 4, 4, 1)), jnp.uint8)
    grids = plotting.grids(model, (4, 4, 1), levels=levels)
    labelled = jax.jit(grids["completions"])(params, {}, jax.random.key(0), x)
    kinds = ["data", "completed"] if levels == 2 else ["data", "as the model sees it", "completed"]
    assert labelled.row_labels() == kinds * 3
    grid, num = labelled.examples, len(kinds)
    assert grid.shape == (3 * num, 10, 4, 4, 1)
    np.testing.assert_array_equal(grid[::num].reshape(30, 4, 4, 1), x[:30])
    seen, completed = grid[num - 2 :: num], grid[num - 1 :: num]
    np.testing.assert_array_equal(completed[:, :, :2], seen[:, :, :2])
    assert np.any(np.asarray(completed) != np.asarray(seen))
    assert labelled.given[num - 1 :: num, :2].all()
    assert labelled.given.sum() == 3 * 8
