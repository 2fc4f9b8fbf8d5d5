"""The flow matching loss against conditional means, which are its minimum."""

import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.losses import flow_matching
from gm_jax.ops import gaussian_path

RNG = np.random.default_rng(0)


def test_the_loss_is_the_squared_error_summed_over_the_event(x64):
    u, u_hat = (jnp.asarray(RNG.normal(size=(5, 3, 2))) for _ in range(2))
    expected = np.sum((np.asarray(u) - np.asarray(u_hat)) ** 2, axis=(1, 2))
    np.testing.assert_allclose(flow_matching.conditional_flow_matching_loss(u, u_hat), expected, rtol=1e-12)


def test_the_target_of_the_straight_path_is_the_difference_of_noise_and_data(x64):
    x_0, eps = (jnp.asarray(RNG.normal(size=(4, 3))) for _ in range(2))
    u = gaussian_path.linear().velocity(x_0, eps, jnp.asarray(RNG.uniform(size=4)))
    np.testing.assert_allclose(u, eps - x_0, rtol=1e-12)


def test_the_minimum_is_the_mean_velocity_given_x_t(x64):
    # Data at two points with weights 0.3 and 0.7, noise by Gauss-Hermite quadrature: E[u | x_t] by Bayes' rule.
    path, points, weights, t = gaussian_path.linear(), np.array([-1.0, 0.5]), np.array([0.3, 0.7]), 0.6
    a, s = 1 - t, t
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(80)
    x_0, eps = (grid.ravel() for grid in np.meshgrid(points, nodes, indexing="ij"))
    mass = np.outer(weights, node_weights / node_weights.sum()).ravel()
    x_t = a * x_0 + s * eps
    posterior = weights * np.exp(-0.5 * ((x_t[:, None] - a * points) / s) ** 2)
    posterior /= posterior.sum(axis=1, keepdims=True)
    mean_x_0 = posterior @ points
    mean_u = (x_t - a * mean_x_0) / s - mean_x_0
    u = path.velocity(jnp.asarray(x_0)[:, None], jnp.asarray(eps)[:, None], jnp.full(len(x_0), t))

    def risk(shift):
        u_hat = jnp.asarray(mean_u + shift * np.tanh(x_t))[:, None]
        return float(jnp.sum(mass * flow_matching.conditional_flow_matching_loss(u, u_hat)))

    np.testing.assert_allclose(risk(0.01) - risk(0.0), risk(-0.01) - risk(0.0), rtol=1e-6)
    assert risk(0.01) > risk(0.0) > 0.0


def test_shapes_that_do_not_fit_are_refused():
    for u_hat in (jnp.ones((3, 1)), jnp.ones((2, 3)), jnp.ones((3, 2), jnp.int32)):
        with pytest.raises(AssertionError):
            flow_matching.conditional_flow_matching_loss(jnp.ones((3, 2)), u_hat)
    with pytest.raises(AssertionError, match="event axis"):
        flow_matching.conditional_flow_matching_loss(jnp.ones(3), jnp.ones(3))
