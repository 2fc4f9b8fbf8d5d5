import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.masked_conv import colors
from gm_jax.networks.pixel_network import PixelNetwork, Readout


@pytest.mark.parametrize("levels", [2, 256])
def test_levels_are_scaled_to_minus_one_and_one(levels):
    network = PixelNetwork((1, 1, 1), levels, 1)
    for dtype in (jnp.uint8, jnp.int32, jnp.float32):
        np.testing.assert_allclose(network.scale(jnp.asarray([0, levels - 1], dtype)), [-1.0, 1.0], atol=1e-6)
    assert PixelNetwork((1, 1, 1), levels, 1, dtype=jnp.bfloat16).scale(jnp.asarray([0])).dtype == jnp.bfloat16


def test_raster_positions_count_channels_fastest():
    network = PixelNetwork((2, 4, 3), 2, 1)
    columns = [int(network.column_of(i)) for i in range(24)]
    assert columns == [column for _ in range(2) for column in range(4) for _ in range(3)]


def test_the_readout_shows_each_colour_only_earlier_ones(randomized):
    module, x = Readout(colors(6, 3), channels=3, outputs_per_dim=2), jnp.ones(6)  # relu needs positive inputs
    sees = np.zeros((3, 6), bool)
    for seed in range(8):  # a relu may be dead for one seed
        params = randomized(module, x, seed=seed)
        sees |= np.asarray(jax.jacrev(lambda x, params=params: module.apply(params, x))(x)).any(axis=1)
    np.testing.assert_array_equal(sees, np.asarray(colors(6, 3))[None] <= np.arange(3)[:, None])
