import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.masked_conv import (
    MaskedConv,
    MaskedDense,
    RowConv,
    UpperConv,
    color_mask,
    colors,
    set_column,
    shift_down,
    write_level,
)


def randomized(module, x, seed=0):
    leaves, structure = jax.tree.flatten(jax.eval_shape(module.init, jax.random.key(seed), x))
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(structure, [jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype) for leaf in leaves])


def seen(module, shape):
    """Returns [H, W, O, H, W, I] bool: which output depends on which input."""
    x = jax.random.normal(jax.random.key(1), (1, *shape))
    jacobian = jax.jit(jax.jacrev(functools.partial(module.apply, randomized(module, x))))(x)
    return np.asarray(jacobian[0, :, :, :, 0] != 0)


def test_colours_divide_the_features_into_equal_blocks():
    assert colors(3, 3) == (0, 1, 2)
    assert colors(4, 3) == (0, 0, 1, 2)
    assert colors(4, 2, repeats=2) == (0, 0, 1, 1, 0, 0, 1, 1)
    assert colors(5, 1) == (0,) * 5
    for features, channels in ((64, 3), (7, 5)):
        counts = np.bincount(colors(features, channels), minlength=channels)
        assert counts.max() - counts.min() <= 1
    with pytest.raises(ValueError, match="2 features cannot carry 3 channels"):
        colors(2, 3)


def test_mask_a_hides_a_colour_from_itself_and_mask_b_shows_it():
    rgb = (0, 1, 2)
    np.testing.assert_array_equal(color_mask(rgb, rgb, strict=True), np.triu(np.ones((3, 3), bool), 1))
    np.testing.assert_array_equal(color_mask(rgb, rgb, strict=False), np.triu(np.ones((3, 3), bool)))
    assert not color_mask((0, 0), (0,), strict=True).any()
    assert color_mask((0, 0), (0,), strict=False).all()


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("size", [3, 5])
def test_a_masked_convolution_sees_rows_above_and_its_own_row_to_the_left(size, strict):
    shape, half = (6, 7), size // 2
    sees = seen(MaskedConv(size, (0, 0), (0, 0, 0), strict), (*shape, 2)).all(axis=(2, 5))
    some = seen(MaskedConv(size, (0, 0), (0, 0, 0), strict), (*shape, 2)).any(axis=(2, 5))
    for r, c, s, d in np.ndindex(*shape, *shape):
        above = r - half <= s < r and abs(d - c) <= half
        left = s == r and c - half <= d < c
        centre = (s, d) == (r, c) and not strict
        assert sees[r, c, s, d] == some[r, c, s, d] == (above or left or centre), (r, c, s, d)


@pytest.mark.parametrize("strict", [True, False])
def test_within_a_pixel_green_sees_red_and_blue_sees_both(strict):
    inputs, outputs = colors(3, 3), colors(6, 3)
    sees = seen(MaskedConv(3, inputs, outputs, strict), (3, 3, 3))[1, 1]
    np.testing.assert_array_equal(sees[:, 1, 1], color_mask(inputs, outputs, strict=strict).T)
    assert sees[:, 0].all()  # the row above, in all colours
    assert sees[:, 1, 0].all()
    assert not sees[:, 1, 2].any()
    assert not sees[:, 2].any()


def test_a_masked_convolution_equals_the_plain_one_with_zeros_below_its_centre():
    module, x = MaskedConv(5, (0, 0), (0, 0, 0)), jax.random.normal(jax.random.key(2), (2, 6, 7, 2))
    params = randomized(module, x)["params"]
    kernel = np.zeros((5, 5, 2, 3), np.float32)
    kernel[:2] = params["above"]["kernel"]
    kernel[2, :3] = params["left"]["taps"]["kernel"].reshape(3, 2, 3)
    expected = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    expected += params["left"]["taps"]["bias"].reshape(1, 1, 1, 3)
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, atol=1e-5)


def test_masked_weights_get_no_gradient():
    module, x = MaskedDense(colors(3, 3), colors(3, 3), strict=True), jnp.ones((1, 3))
    params = randomized(module, x)
    gradient = jax.grad(lambda params: jnp.sum(module.apply(params, x) ** 2))(params)["params"]["kernel"]
    np.testing.assert_array_equal(np.asarray(gradient) != 0, color_mask((0, 1, 2), (0, 1, 2), strict=True))


def test_an_upper_convolution_sees_its_own_row_and_the_rows_above():
    sees = seen(UpperConv(2, rows=2, size=3), (4, 5, 1)).any(axis=(2, 5))
    for r, c, s, d in np.ndindex(4, 5, 4, 5):
        assert sees[r, c, s, d] == (r - 1 <= s <= r and abs(d - c) <= 1)


def test_shift_down_moves_by_one_row_with_zeros_first():
    x = jnp.arange(1.0, 13.0).reshape(1, 3, 4, 1)
    np.testing.assert_array_equal(shift_down(x)[0, 1:], x[0, :-1])
    assert not shift_down(x)[0, 0].any()


@pytest.mark.parametrize("size", [3, 5, 7])
def test_evaluation_by_row_and_pixel_equals_the_whole_map(size):
    module = MaskedConv(size, colors(4, 2), colors(6, 2))
    x = jax.random.normal(jax.random.key(3), (2, 5, 6, 4))
    params = randomized(module, x)
    call = functools.partial(module.apply, params)
    cache = call(2, 6, jnp.float32, method="begin")
    y = np.zeros((2, 5, 6, 6), np.float32)
    for r in range(5):
        cache = call(cache, method="begin_row")
        for c in range(6):
            # Old values of the pixel must not matter.
            cache = call(cache, c, jnp.full((2, 4), 1e3), method="write")
            cache = call(cache, c, x[:, r, c], method="write")
            y[:, r, c] = call(cache, c, method="at")
    np.testing.assert_allclose(y, module.apply(params, x), atol=1e-4)


def test_a_level_is_written_at_its_column_and_channel():
    row = jnp.zeros((2, 1 + 4, 3))
    for position, column, channel in ((0, 0, 0), (5, 1, 2), (12, 0, 0), (23, 3, 2), (-1, 3, 2)):
        written = np.asarray(write_level(row, jnp.int32(position), jnp.ones(2), width=4))
        expected = np.zeros((2, 5, 3))
        expected[:, 1 + column, channel] = 1
        np.testing.assert_array_equal(written, expected)


def test_a_column_is_written_whole():
    row = set_column(jnp.zeros((2, 3, 4)), 1, jnp.ones((2, 4)))
    np.testing.assert_array_equal(np.asarray(row).sum((0, 2)), [0, 8, 0])


def test_even_sizes_raise():
    for module in (MaskedConv(4, (0,), (0,)), RowConv(2, (0,), (0,)), UpperConv(1, rows=1, size=2)):
        with pytest.raises(ValueError, match="odd size"):
            module.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))


def test_bfloat16_compute_keeps_float32_parameters():
    module = MaskedConv(3, (0,), (0,), dtype=jnp.bfloat16)
    y, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
