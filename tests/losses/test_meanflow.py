"""The MeanFlow loss on normal data, whose mean velocity is a closed form on every path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.losses import flow_matching, meanflow
from gm_jax.ops import gaussian_path
from gm_jax.ops.predictions import diffuse

RNG = np.random.default_rng(0)
MEAN, STD = 0.7, 0.4
PATHS = {
    "linear": gaussian_path.linear(),
    "trigonometric": gaussian_path.trigonometric(),
    "vp": gaussian_path.variance_preserving(),
}


def moments(path, t):
    a, s = path.signal(t), path.noise(t)
    return a * MEAN, jnp.sqrt(a**2 * STD**2 + s**2)


def exact_mean_velocity(path):
    """The flow of N(MEAN, STD^2) keeps (x - mean) / std: (2) solved for U."""

    def mean_velocity(x, r, t):
        (mean_r, std_r), (mean_t, std_t) = moments(path, r[:, None]), moments(path, t[:, None])
        x_r = mean_r + std_r / std_t * (x - mean_t)
        return (x - x_r) / (t - r)[:, None]

    return mean_velocity


def marginal_velocity(path, x, t):
    """E[u | x_t]."""
    (mean, std), (mean_slope, std_slope) = jax.jvp(
        lambda t: moments(path, t), (t[:, None],), (jnp.ones_like(t[:, None]),)
    )
    return mean_slope + std_slope / std * (x - mean)


def points(path, n=7):
    first, last = path.range
    r, t = np.sort(RNG.uniform(0.1, 0.9, size=(2, n)), axis=0) * (last - first) + first
    return jnp.asarray(RNG.normal(size=(n, 3))), jnp.asarray(r), jnp.asarray(t)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_exact_mean_velocity_keeps_the_identity(path, x64):
    x_t, r, t = points(path)
    loss = meanflow.mean_flow_loss(exact_mean_velocity(path), x_t, marginal_velocity(path, x_t, t), r, t)
    # The loss is a square: 1e-18 is an identity within 1e-9.
    np.testing.assert_allclose(loss, np.zeros(7), atol=1e-18)


def test_the_derivative_is_along_the_direction(x64):
    x_t, u, v, r, t = (jnp.array([[value]]) for value in (2.0, 3.0, -5.0, 0.25, 0.75))
    loss = meanflow.mean_flow_loss(lambda x, r, t: x * (5 * r + 7 * t)[:, None], x_t, u, r[0], t[0], direction=v)
    value, slope = 2 * (5 * 0.25 + 7 * 0.75), -5 * (5 * 0.25 + 7 * 0.75) + 2 * 7
    np.testing.assert_allclose(loss, [(value - (3 - 0.5 * slope)) ** 2], rtol=1e-12)


@pytest.mark.parametrize("improved", [False, True])
def test_the_loss_is_least_at_the_exact_mean_velocity(improved, x64):
    # All pairs in one x_t by Gauss-Hermite quadrature: x_0 given x_t is normal.
    path, x, r, t = PATHS["linear"], 0.3, 0.2, 0.7
    a, s = 1 - t, t
    variance = 1 / (1 / STD**2 + a**2 / s**2)
    mean = variance * (MEAN / STD**2 + a * x / s**2)
    nodes, mass = np.polynomial.hermite_e.hermegauss(40)
    x_0 = jnp.asarray(mean + np.sqrt(variance) * nodes)[:, None]
    mass = jnp.asarray(mass / mass.sum())
    eps = (x - a * x_0) / s
    r, t, x_t = jnp.full(40, r), jnp.full(40, t), jnp.full((40, 1), x)
    np.testing.assert_allclose(diffuse(x_0, eps, path.signal(t), path.noise(t)), x_t, rtol=1e-12)
    exact, u = exact_mean_velocity(path), path.velocity(x_0, eps, t)
    direction = marginal_velocity(path, x_t, t) if improved else None

    def slope(shift):
        def mean_velocity(x, r, t):
            return exact(x, r, t) + shift

        return jnp.sum(mass * meanflow.mean_flow_loss(mean_velocity, x_t, u, r, t, direction=direction))

    # A shift that is constant changes no derivative of U, so that the slope is 2 (U - E[target]).
    assert abs(float(jax.grad(slope)(0.0))) < 1e-9
    assert float(jax.grad(slope)(0.1)) > 0.1


def test_equal_times_give_flow_matching_bit_for_bit():
    x_t, u = (jnp.asarray(RNG.normal(size=(5, 2)), jnp.float32) for _ in range(2))
    t = jnp.asarray(RNG.uniform(size=5), jnp.float32)

    def mean_velocity(x, r, t):
        return jnp.sin(3 * x) * (1 + r - t**2)[:, None]

    found = meanflow.mean_flow_loss(mean_velocity, x_t, u, t, t)
    expected = flow_matching.conditional_flow_matching_loss(u, mean_velocity(x_t, t, t))
    np.testing.assert_array_equal(found, expected)


def test_the_earlier_time_stays_in_the_derivative(x64):
    # A published mistake: the tangent (u, 1, 1) in place of (u, 0, 1).
    x_t, u, r, t = jnp.array([[2.0]]), jnp.array([[3.0]]), jnp.array([0.25]), jnp.array([0.75])
    loss = meanflow.mean_flow_loss(lambda x, r, t: x * (5 * r + 7 * t)[:, None], x_t, u, r, t)
    value, slope = 2 * (5 * 0.25 + 7 * 0.75), 3 * (5 * 0.25 + 7 * 0.75) + 2 * 7
    np.testing.assert_allclose(loss, [(value - (3 - 0.5 * slope)) ** 2], rtol=1e-12)


def test_the_gradient_sees_the_network_and_not_the_target(x64):
    # A published mistake: no stop-gradient on the target.
    x_t, u, r, t = jnp.array([[2.0]]), jnp.array([[3.0]]), jnp.array([0.25]), jnp.array([0.75])

    def loss(w):
        return meanflow.mean_flow_loss(lambda x, r, t: w * x * t[:, None], x_t, u, r, t)[0]

    value, target = 2.0 * 0.75, 3 - 0.5 * (3 * 0.75 + 2)
    np.testing.assert_allclose(jax.grad(loss)(1.0), 2 * (value - target) * 2 * 0.75, rtol=1e-12)


def test_the_weight_is_a_power_of_the_loss_and_a_constant_to_the_gradient(x64):
    loss = jnp.asarray([0.0, 0.5, 4.0])
    np.testing.assert_allclose(
        meanflow.adaptive_weight(loss, power=0.75, offset=0.1), (np.asarray(loss) + 0.1) ** -0.75, rtol=1e-12
    )
    np.testing.assert_array_equal(meanflow.adaptive_weight(loss, power=0.0), np.ones(3))
    gradient = jax.grad(lambda x: jnp.sum(meanflow.adaptive_weight(x, power=1.0, offset=0.1) * x))(loss)
    np.testing.assert_allclose(gradient, 1 / (np.asarray(loss) + 0.1), rtol=1e-12)
    with pytest.raises(ValueError, match="offset must be above 0"):
        meanflow.adaptive_weight(loss, power=1.0, offset=0.0)


def test_shapes_that_do_not_fit_are_refused():
    good = (jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.zeros(3), jnp.ones(3))
    for i, bad in ((0, jnp.ones(3)), (1, jnp.ones((3, 1))), (2, jnp.zeros((3, 1))), (3, jnp.ones(3, jnp.int32))):
        with pytest.raises(AssertionError):
            meanflow.mean_flow_loss(lambda x, r, t: x, *(bad if i == k else one for k, one in enumerate(good)))
    with pytest.raises(AssertionError):
        meanflow.mean_flow_loss(lambda x, r, t: x, *good, direction=jnp.ones((3, 1)))
