import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import bijectors

B, C = 3, 6


def test_squeeze_orders_each_square_by_row_then_column_then_channel():
    # Entry 100 h + 10 w + c encodes its position.
    height, width, channels = np.meshgrid(np.arange(4), np.arange(6), np.arange(3), indexing="ij")
    x = jnp.asarray(100 * height + 10 * width + channels)[None]
    z = np.asarray(bijectors.squeeze(x))
    assert z.shape == (1, 2, 3, 12)
    np.testing.assert_array_equal(z[0, 0, 0], [0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112])
    np.testing.assert_array_equal(z[0, 1, 2], 240 + z[0, 0, 0])
    for i in range(2):
        for j in range(2):
            image = slice(3 * (2 * i + j), 3 * (2 * i + j) + 3)
            np.testing.assert_array_equal(z[..., image], x[:, i::2, j::2])
    np.testing.assert_array_equal(bijectors.unsqueeze(jnp.asarray(z)), x)


def test_a_checkerboard_separates_neighbours():
    mask = bijectors.checkerboard_mask(4, 6)
    assert mask.shape == (1, 4, 6, 1)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask[0, :2, :2, 0], [[True, False], [False, True]])
    np.testing.assert_array_equal(mask[:, 1:], ~mask[:, :-1])
    np.testing.assert_array_equal(mask[:, :, 1:], ~mask[:, :, :-1])


def test_a_squeezed_checkerboard_separates_channels():
    mask = jnp.broadcast_to(bijectors.checkerboard_mask(4, 6), (1, 4, 6, 1))
    np.testing.assert_array_equal(bijectors.squeeze(mask), np.tile([True, False, False, True], (1, 2, 3, 1)))


def test_channel_masks_are_halves():
    np.testing.assert_array_equal(bijectors.channel_mask(4), [[[[False, False, True, True]]]])
    np.testing.assert_array_equal(bijectors.channel_mask(5), [[[[False, False, True, True, True]]]])


def test_squeeze_refuses_odd_maps():
    for shape in ((B, 3, 4, C), (B, 4, 3, C), (B, 4, C)):
        with pytest.raises(AssertionError):
            bijectors.squeeze(jnp.zeros(shape))
    for shape in ((B, 4, 4, 6), (B, 4, 8)):
        with pytest.raises(AssertionError):
            bijectors.unsqueeze(jnp.zeros(shape))
