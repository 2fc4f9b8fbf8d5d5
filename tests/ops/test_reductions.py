import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from gm_jax.ops import reductions

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 4, 5), (3, 2, 2, 2), (1, 7), (0, 4)])
def test_sum_except_batch_is_the_sum_of_each_example(shape):
    x = RNG.normal(size=shape).astype(np.float32)
    expected = x.astype(np.float64).reshape(shape[0], int(np.prod(shape[1:]))).sum(axis=1)
    total = reductions.sum_except_batch(jnp.asarray(x))
    assert total.shape == (shape[0],)
    np.testing.assert_allclose(total, expected, rtol=1e-6, atol=1e-6)


def test_sum_except_batch_is_vmap_of_sum():
    x = jnp.asarray(RNG.normal(size=(5, 3, 2)), jnp.float32)
    np.testing.assert_allclose(reductions.sum_except_batch(x), jax.vmap(jnp.sum)(x), rtol=1e-6)


def test_sum_except_batch_refuses_a_scalar():
    with pytest.raises(AssertionError, match="batch axis"):
        reductions.sum_except_batch(jnp.float32(1.0))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_log_mean_exp_is_the_float64_formula(axis):
    x = RNG.normal(scale=5.0, size=(6, 4, 3)).astype(np.float32)
    expected = special.logsumexp(x.astype(np.float64), axis=axis) - np.log(x.shape[axis])
    np.testing.assert_allclose(reductions.log_mean_exp(jnp.asarray(x), axis=axis), expected, rtol=1e-6, atol=1e-6)


def test_log_mean_exp_of_equal_entries_is_the_entry():
    np.testing.assert_allclose(reductions.log_mean_exp(jnp.full((7, 2), -3.25), axis=0), [-3.25, -3.25], rtol=1e-6)


def test_log_mean_exp_shifts_with_its_argument(x64):
    x = jnp.asarray(RNG.normal(size=(6, 4)))
    shifted = reductions.log_mean_exp(x + 2.5, axis=0)
    np.testing.assert_allclose(shifted, reductions.log_mean_exp(x, axis=0) + 2.5, rtol=1e-14)


def test_log_mean_exp_lies_between_the_mean_and_the_maximum():
    x = jnp.asarray(RNG.normal(size=(6, 40)), jnp.float32)
    value = reductions.log_mean_exp(x, axis=0)
    assert np.all(value > x.mean(axis=0))
    assert np.all(value < x.max(axis=0))


def test_the_gradient_of_log_mean_exp_is_a_softmax():
    x = jnp.asarray(RNG.normal(size=6), jnp.float32)
    np.testing.assert_allclose(jax.grad(reductions.log_mean_exp)(x, axis=0), jax.nn.softmax(x), rtol=1e-5)


def test_log_mean_exp_does_not_overflow_or_underflow():
    x = jnp.array([[1e4, -1e4, -1e30], [1e4 - 1.0, -1e4 - 1.0, 0.0]], jnp.float32)
    value, gradient = jax.value_and_grad(lambda x: reductions.log_mean_exp(x, axis=0).sum())(x)
    log_mean = np.log((1 + np.exp(-1)) / 2)
    expected = [1e4 + log_mean, -1e4 + log_mean, -np.log(2)]
    np.testing.assert_allclose(reductions.log_mean_exp(x, axis=0), expected, rtol=1e-6)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))


def test_log_mean_exp_takes_a_weight_of_zero():
    assert float(reductions.log_mean_exp(jnp.array([0.0, -jnp.inf]), axis=0)) == pytest.approx(-np.log(2))


def test_log_mean_exp_refuses_integers():
    with pytest.raises(AssertionError):
        reductions.log_mean_exp(jnp.arange(3), axis=0)


def test_a_uniform_model_of_256_levels_needs_8_bits_per_dim():
    num_dims = 3 * 32 * 32
    assert reductions.nats_to_bits_per_dim(num_dims * np.log(256.0), num_dims) == pytest.approx(8.0, rel=1e-12)


def test_bits_per_dim_keeps_the_shape_of_nats():
    nats = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    expected = np.asarray(nats, np.float64) / (10 * np.log(2))
    np.testing.assert_allclose(reductions.nats_to_bits_per_dim(nats, 10), expected, rtol=1e-6)


def test_bits_per_dim_refuses_an_example_without_dimensions():
    with pytest.raises(ValueError, match="num_dims"):
        reductions.nats_to_bits_per_dim(jnp.ones(2), 0)


@pytest.mark.parametrize(
    "reduce_fn",
    [
        reductions.sum_except_batch,
        lambda x: reductions.log_mean_exp(x, axis=0),
        lambda x: reductions.nats_to_bits_per_dim(x, 12),
    ],
)
def test_jit_and_vmap_agree_with_the_plain_call(reduce_fn):
    x = jnp.asarray(RNG.normal(size=(4, 3, 5)), jnp.float32)
    plain = jnp.stack([reduce_fn(row) for row in x])
    chex.assert_trees_all_close(jax.vmap(reduce_fn)(x), plain, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(jax.jit(jax.vmap(reduce_fn))(x), plain, rtol=1e-5, atol=1e-6)
