"""Divergences of fields whose Jacobian is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import divergence

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(6, 6))


def field(x):
    """Has the Jacobian MATRIX + diag(3 x^2) in each example [3, 2]."""
    flat = x.reshape(x.shape[0], 6)
    return (flat @ MATRIX.T + flat**3).reshape(x.shape)


def test_the_exact_divergence_is_the_trace_of_the_jacobian(x64):
    x = jnp.asarray(RNG.normal(size=(5, 3, 2)))
    value, found = divergence.exact_divergence(field, x)
    np.testing.assert_allclose(value, field(x), rtol=1e-12)
    np.testing.assert_allclose(found, np.trace(MATRIX) + 3 * np.sum(np.square(x), axis=(1, 2)), rtol=1e-12)


def test_a_probe_gives_its_quadratic_form(x64):
    x, v = (jnp.asarray(RNG.normal(size=(5, 3, 2))) for _ in range(2))
    value, found = divergence.probed_divergence(field, x, v)
    flat, points = np.asarray(v).reshape(5, 6), np.asarray(x).reshape(5, 6)
    expected = np.einsum("bi,ij,bj->b", flat, MATRIX, flat) + np.sum(3 * points**2 * flat**2, axis=1)
    np.testing.assert_allclose(value, field(x), rtol=1e-12)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_mean_over_all_sign_probes_is_the_exact_divergence(x64):
    # All 2^6 probes, so that nothing is left to chance.
    x = jnp.asarray(RNG.normal(size=(1, 3, 2)))
    signs = 1.0 - 2.0 * ((np.arange(64)[:, None] >> np.arange(6)) & 1)
    probes = jnp.asarray(signs.reshape(64, 1, 3, 2))
    each = jax.vmap(lambda v: divergence.probed_divergence(field, x, v)[1])(probes)[:, 0]
    np.testing.assert_allclose(jnp.mean(each), divergence.exact_divergence(field, x)[1][0], rtol=1e-12)
    symmetric = (MATRIX + MATRIX.T) / 2
    variance = 2 * (np.sum(symmetric**2) - np.sum(np.diag(symmetric) ** 2))
    np.testing.assert_allclose(jnp.var(each), variance, rtol=1e-10)


def test_an_exact_divergence_of_an_image_is_refused():
    with pytest.raises(ValueError, match="784 dimensions"):
        divergence.exact_divergence(lambda x: x, jnp.ones((1, 28, 28)))
