"""The affine flow: its Jacobian, and the normal density that it makes of a normal prior."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.networks.affine_flow import AffineFlow


def test_both_directions_are_inverse_and_have_the_log_determinant_of_the_jacobian(check_flow):
    check_flow(AffineFlow((3,)), (3,))
    check_flow(AffineFlow((2, 2, 1)), (2, 2, 1))


def test_it_starts_with_the_moments_of_the_batch():
    root = np.array([[1.0, 0.0], [0.8, 0.3]])
    x = np.array([0.5, -2.0]) + np.random.default_rng(0).normal(size=(50_000, 2)) @ root.T
    network = AffineFlow((2,))
    variables = network.init(jax.random.key(0), jnp.asarray(x, jnp.float32), method="forward")
    z = jax.random.normal(jax.random.key(1), (100_000, 2))
    draws, _ = network.apply(variables, z, method="inverse")
    np.testing.assert_allclose(jnp.mean(draws, axis=0), x.mean(axis=0), atol=0.02)
    expected = np.cov(x.T) + 0.1 * np.diag(x.var(axis=0))
    np.testing.assert_allclose(jnp.cov(draws.T), expected, atol=0.02)


def test_a_batch_without_spread_is_no_singular_map():
    x = jnp.ones((4, 3)).at[:, 1].set(jnp.arange(4.0))
    variables = AffineFlow((3,)).init(jax.random.key(0), x, method="forward")
    z, log_det = AffineFlow((3,)).apply(variables, x, method="forward")
    assert np.isfinite(z).all()
    assert np.isfinite(log_det).all()
    back, _ = AffineFlow((3,)).apply(variables, z, method="inverse")
    np.testing.assert_allclose(back, x, atol=1e-5)
