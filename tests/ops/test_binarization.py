import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import binarization

RNG = np.random.default_rng(0)


def test_static_keeps_the_values_and_makes_them_float32():
    x = RNG.integers(0, 2, size=(3, 4, 4, 1)).astype(np.uint8)
    y = binarization.static(jnp.asarray(x))
    assert y.dtype == jnp.float32
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_dynamic_is_one_if_the_noise_is_below_the_grey_level(levels):
    x = RNG.integers(0, levels, size=(64, 9)).astype(np.uint8)
    uniform = RNG.random((64, 9)).astype(np.float32)
    y = binarization.dynamic(jnp.asarray(x), jnp.asarray(uniform), levels=levels)
    assert y.dtype == jnp.float32
    np.testing.assert_array_equal(y, uniform * (levels - 1) < x)


@pytest.mark.parametrize("levels", [17, 256])
def test_the_mean_of_dynamic_is_the_grey_level(levels):
    draws = 4000
    x = jnp.arange(levels, dtype=jnp.int32)
    uniform = jax.random.uniform(jax.random.key(1), (draws, levels))
    y = jax.vmap(lambda u: binarization.dynamic(x, u, levels=levels))(uniform)
    probability = np.arange(levels) / (levels - 1)
    standard_error = np.sqrt(probability * (1 - probability) / draws)
    z = (np.asarray(y, np.float64).mean(axis=0) - probability)[1:-1] / standard_error[1:-1]
    # Over all levels at once: the mean square of z is 1, with standard error sqrt(2 / n).
    assert abs(np.mean(z**2) - 1) < 3 * np.sqrt(2 / z.size)
    assert abs(np.mean(z)) < 3 / np.sqrt(z.size)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_black_and_white_do_not_depend_on_the_noise(levels):
    extremes = jnp.array([0.0, np.nextafter(np.float32(1), np.float32(0))], jnp.float32)
    black, white = jnp.zeros(2, jnp.uint8), jnp.full(2, levels - 1, jnp.uint8)
    np.testing.assert_array_equal(binarization.dynamic(black, extremes, levels=levels), [0.0, 0.0])
    np.testing.assert_array_equal(binarization.dynamic(white, extremes, levels=levels), [1.0, 1.0])


def test_new_noise_draws_a_new_image():
    x = jnp.full((1000,), 8, jnp.uint8)
    first, second = (
        binarization.dynamic(x, jax.random.uniform(jax.random.key(seed), x.shape), levels=17) for seed in (0, 1)
    )
    assert 0.3 < float(jnp.mean(first != second)) < 0.7


@pytest.mark.parametrize(("levels", "first_white"), [(2, 1), (3, 2), (4, 2), (17, 9), (256, 128)])
def test_threshold_splits_the_scale_in_the_middle(levels, first_white):
    y = binarization.threshold(jnp.arange(levels, dtype=jnp.int32), levels=levels)
    assert y.dtype == jnp.float32
    np.testing.assert_array_equal(y, np.arange(levels) >= first_white)
    np.testing.assert_array_equal(y, np.arange(levels) > (levels - 1) / 2)


def test_threshold_takes_uint8_images():
    x = jnp.array([[0, 127], [128, 255]], jnp.uint8)
    np.testing.assert_array_equal(binarization.threshold(x, levels=256), [[0.0, 0.0], [1.0, 1.0]])


def test_the_three_agree_on_binary_levels():
    x = jnp.asarray(RNG.integers(0, 2, size=(5, 6)), jnp.uint8)
    uniform = jnp.asarray(RNG.random((5, 6)), jnp.float32)
    np.testing.assert_array_equal(binarization.static(x), binarization.threshold(x, levels=2))
    np.testing.assert_array_equal(binarization.static(x), binarization.dynamic(x, uniform, levels=2))


def test_an_image_already_scaled_to_floats_is_refused():
    x = jnp.full((2, 3), 0.5)
    with pytest.raises(AssertionError):
        binarization.static(x)
    with pytest.raises(AssertionError):
        binarization.threshold(x, levels=256)
    with pytest.raises(AssertionError):
        binarization.dynamic(x, x, levels=256)


@pytest.mark.parametrize(
    ("binarize_fn", "levels"),
    [
        (binarization.static, 2),
        (lambda x: binarization.threshold(x, levels=17), 17),
        (lambda x: binarization.dynamic(x, jnp.zeros(x.shape), levels=17), 17),
    ],
)
def test_known_values_outside_the_levels_are_refused(binarize_fn, levels):
    binarize_fn(jnp.asarray([[0, levels - 1]]))
    binarize_fn(jnp.zeros((0, 3), jnp.uint8))
    for wrong in ([[0, levels]], [[-1, 0]]):
        with pytest.raises(AssertionError, match=rf"levels 0 \.\. {levels - 1}; got"):
            binarize_fn(jnp.asarray(wrong))
    assert jax.jit(binarize_fn)(jnp.asarray([[0, levels]])).shape == (1, 2)  # there they are not known


def test_noise_must_be_floating_and_have_the_shape_of_the_image():
    x = jnp.ones((2, 3), jnp.uint8)
    with pytest.raises(AssertionError):
        binarization.dynamic(x, jnp.ones((2, 1)), levels=256)
    with pytest.raises(AssertionError):
        binarization.dynamic(x, x, levels=256)


def test_fewer_than_two_levels_are_refused():
    x = jnp.zeros((2,), jnp.uint8)
    with pytest.raises(ValueError, match="levels"):
        binarization.threshold(x, levels=1)
    with pytest.raises(ValueError, match="levels"):
        binarization.dynamic(x, jnp.zeros(2), levels=1)


@pytest.mark.parametrize(
    "binarize_fn",
    [
        lambda x, _: binarization.static(x // 16),
        lambda x, uniform: binarization.dynamic(x, uniform, levels=17),
        lambda x, _: binarization.threshold(x, levels=17),
    ],
)
def test_jit_and_vmap_agree_with_the_plain_call(binarize_fn):
    x = jnp.asarray(RNG.integers(0, 17, size=(4, 8, 8, 1)), jnp.uint8)
    uniform = jnp.asarray(RNG.random(x.shape), jnp.float32)
    plain = binarize_fn(x, uniform)
    np.testing.assert_array_equal(jax.jit(binarize_fn)(x, uniform), plain)
    np.testing.assert_array_equal(jax.vmap(binarize_fn)(x, uniform), plain)
