import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import quantization as ops

RNG = np.random.default_rng(0)
LEVELS = [(3,), (2, 2), (4, 5), (8, 5, 5, 5), (2, 3, 4, 7)]


def test_the_nearest_code_is_that_of_all_distances():
    z, codebook = RNG.normal(size=(50, 3)), RNG.normal(size=(7, 3))
    distances = np.linalg.norm(z[:, None] - codebook[None], axis=2)
    np.testing.assert_array_equal(ops.nearest_code(jnp.float32(z), jnp.float32(codebook)), distances.argmin(axis=1))
    # A long code is far away, although its product with z is the largest.
    found = ops.nearest_code(jnp.array([[1.0, 0.0]]), jnp.array([[9.0, 0.0], [0.9, 0.0], [0.9, 0.0]]))
    assert (found.dtype, found.tolist()) == (jnp.int32, [1])


def test_straight_through_has_the_value_of_one_and_the_gradient_of_the_other():
    z, value = jnp.float32(RNG.normal(size=(4, 3))), jnp.float32(RNG.normal(size=(4, 3)))
    np.testing.assert_array_equal(ops.straight_through(z, value), value)
    at_z, at_value = jax.jacobian(ops.straight_through, argnums=(0, 1))(z, value)
    np.testing.assert_array_equal(at_z.reshape(12, 12), np.eye(12))
    np.testing.assert_array_equal(at_value, np.zeros((4, 3, 4, 3)))


def test_code_means_are_counted_one_by_one_and_their_mean_over_halves_is_that_of_the_whole():
    codes, z = RNG.integers(0, 5, 12), RNG.normal(size=(12, 2)).astype(np.float32)
    codes[codes == 3] = 1
    frequency, sums = ops.code_means(jnp.asarray(codes), jnp.asarray(z), num_codes=5)
    np.testing.assert_allclose(frequency, [np.mean(codes == k) for k in range(5)], rtol=1e-6)
    np.testing.assert_allclose(sums, [z[codes == k].sum(axis=0) / 12 for k in range(5)], rtol=1e-5, atol=1e-7)
    halves = [ops.code_means(jnp.asarray(codes[p]), jnp.asarray(z[p]), num_codes=5) for p in (slice(6), slice(6, 12))]
    for whole, first, second in zip((frequency, sums), *halves, strict=True):
        np.testing.assert_allclose(whole, (first + second) / 2, rtol=1e-5, atol=1e-7)


def test_perplexity_counts_the_codes_that_are_used():
    assert float(ops.perplexity(jnp.full(8, 0.02))) == pytest.approx(8.0, rel=1e-5)
    assert float(ops.perplexity(jnp.array([0.0, 0.3, 0.0]))) == pytest.approx(1.0, rel=1e-6)
    assert float(ops.perplexity(jnp.zeros(4))) == 1.0
    f = np.array([0.5, 0.25, 0.25])
    assert float(ops.perplexity(jnp.asarray(f))) == pytest.approx(math.prod(f**-f), rel=1e-6)


@pytest.mark.parametrize("levels", LEVELS)
def test_codes_and_values_of_fsq_are_a_bijection(levels):
    codes = jnp.arange(math.prod(levels))
    values = np.asarray(ops.scalar_vector(codes, levels))
    np.testing.assert_array_equal(ops.scalar_code(jnp.asarray(values), levels), codes)
    axes = [np.arange(-(n // 2), n - n // 2) / (n // 2) for n in levels]
    # The first number changes fastest.
    expected = np.array([row[::-1] for row in itertools.product(*axes[::-1])])
    np.testing.assert_allclose(values, expected, rtol=1e-6)


@pytest.mark.parametrize("levels", LEVELS)
def test_fsq_reaches_all_its_values_and_no_other(levels):
    z = jnp.stack([jnp.linspace(-9.0, 9.0, 4001)] * len(levels), axis=-1)
    values = np.asarray(ops.scalar_values(z, levels))
    for i, n in enumerate(levels):
        np.testing.assert_allclose(
            np.unique(values[:, i] + 0.0), np.arange(-(n // 2), n - n // 2) / (n // 2), rtol=1e-6
        )
        assert (np.diff(values[:, i]) >= 0).all()
    codes = ops.scalar_code(jnp.asarray(values), levels)
    np.testing.assert_array_equal(ops.scalar_vector(codes, levels), values + 0.0)
    np.testing.assert_array_equal(ops.scalar_values(jnp.zeros((2, 3, len(levels))), levels), 0.0)


@pytest.mark.parametrize(("n", "half", "shift"), [(5, 2.0, 0.0), (4, 1.5, 0.5), (2, 0.5, 0.5)])
def test_the_gradient_of_fsq_is_that_of_its_bound(n, half, shift):
    # From the listing of the source: tanh(z + tan(offset / half_l)) * half_l - offset, divided by L // 2.
    half_l = half * (1.0 - 1e-3)
    z = np.linspace(-2.0, 2.0, 9)
    slope = half_l / np.cosh(z + np.tan(shift / half_l)) ** 2 / (n // 2)
    found = jax.grad(lambda z: jnp.sum(ops.scalar_values(z[:, None], (n,))))(jnp.float32(z))
    np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-6)


def test_fsq_rounds_to_the_nearest_level():
    # tanh(z) * 2 (1 - 1e-3) for z below and above the middle of 0 and 1, and of 1 and 2.
    middles = np.arctanh(np.array([0.5, 1.5]) / (2 * (1 - 1e-3)))
    below, above = (ops.scalar_values(jnp.float32(middles + step)[:, None], (5,)) for step in (-1e-4, 1e-4))
    np.testing.assert_allclose(below[:, 0], [0.0, 0.5])
    np.testing.assert_allclose(above[:, 0], [0.5, 1.0])


@pytest.mark.parametrize("levels", [(), (1, 3), (2**16, 2**15)])
def test_levels_that_make_no_codes_are_refused(levels):
    with pytest.raises(ValueError, match="at least 2 each"):
        ops.scalar_vector(jnp.arange(3), levels)
