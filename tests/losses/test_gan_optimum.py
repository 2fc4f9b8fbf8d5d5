import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, spatial, special

from gm_jax.losses import gan, gan_optimum

RNG = np.random.default_rng(0)
K = 5


def log_distribution(*shape):
    return special.log_softmax(RNG.normal(scale=1.5, size=shape), axis=-1)


def expected_over_atoms(loss_fn, logits, p_data, p_g):
    """E of a loss of pairs (x, x~), x ~ p_data and x~ ~ p_g independent: exact, by all pairs."""
    real, fake = jnp.repeat(logits, K), jnp.tile(logits, K)
    return jnp.sum(jnp.repeat(p_data, K) * jnp.tile(p_g, K) * loss_fn(real, fake))


def test_the_stationary_point_of_the_discriminator_is_the_log_ratio(x64):
    log_p_data, log_p_g = jnp.asarray(log_distribution(K)), jnp.asarray(log_distribution(K))
    loss = lambda logits: expected_over_atoms(gan.discriminator_loss, logits, jnp.exp(log_p_data), jnp.exp(log_p_g))  # noqa: E731
    gradient = jax.jit(jax.grad(loss))
    np.testing.assert_allclose(gradient(log_p_data - log_p_g), np.zeros(K), atol=1e-12)
    assert np.abs(gradient(log_p_data - log_p_g + 0.01)).min() > 1e-5
    # Newton's method finds the same logits without knowing them.
    found = optimize.root(lambda logits: np.asarray(gradient(jnp.asarray(logits))), np.zeros(K), tol=1e-13)
    np.testing.assert_allclose(found.x, log_p_data - log_p_g, atol=1e-10)
    optimum = gan_optimum.optimal_discriminator(log_p_data, log_p_g)
    np.testing.assert_allclose(optimum, special.expit(found.x), atol=1e-10)


def test_the_value_at_the_optimum_is_minus_log_4_plus_two_divergences(x64):
    log_p_data, log_p_g = jnp.asarray(log_distribution(K)), jnp.asarray(log_distribution(K))
    value = expected_over_atoms(gan.minimax_value, log_p_data - log_p_g, jnp.exp(log_p_data), jnp.exp(log_p_g))
    np.testing.assert_allclose(value, gan_optimum.optimal_value(log_p_data, log_p_g), atol=1e-12)
    distance = spatial.distance.jensenshannon(np.exp(log_p_data), np.exp(log_p_g))  # the root of the divergence
    np.testing.assert_allclose(value, -np.log(4) + 2 * distance**2, atol=1e-12)


@pytest.mark.parametrize(("a", "b"), [(0.9, 0.0), (0.9, 0.1), (0.6, 0.3)])
def test_the_optimum_under_smoothing_mixes_the_densities(a, b, x64):
    log_p_data, log_p_g = jnp.asarray(log_distribution(K)), jnp.asarray(log_distribution(K))
    p_data, p_g = np.exp(log_p_data), np.exp(log_p_g)
    optimum = (a * p_data + b * p_g) / (p_data + p_g)
    given = gan_optimum.optimal_discriminator(log_p_data, log_p_g, real_target=a, fake_target=b)
    np.testing.assert_allclose(given, optimum, rtol=1e-13)
    loss_fn = functools.partial(gan.discriminator_loss, real_target=a, fake_target=b)
    gradient = jax.grad(lambda logits: expected_over_atoms(loss_fn, logits, p_data, p_g))
    np.testing.assert_allclose(gradient(jnp.asarray(special.logit(optimum))), np.zeros(K), atol=1e-12)
    assert np.abs(gradient(jnp.asarray(special.logit(optimum) + 0.01))).min() > 1e-5


@pytest.mark.parametrize("loss_fn", [gan.hinge_discriminator_loss, gan.least_squares_discriminator_loss])
def test_hinge_and_least_squares_discriminators_have_their_known_optima(loss_fn, x64):
    p_data, p_g = np.exp(log_distribution(K)), np.exp(log_distribution(K))
    best = p_data / (p_data + p_g) if loss_fn is gan.least_squares_discriminator_loss else np.sign(p_data - p_g)
    at = lambda logits: float(expected_over_atoms(loss_fn, jnp.asarray(logits), p_data, p_g))  # noqa: E731
    for k in range(K):
        for step in (-0.01, 0.01):
            assert at(best) < at(best + step * np.eye(K)[k])


def test_jensen_shannon_agrees_with_scipy_in_every_row(x64):
    log_p, log_q = log_distribution(3, K), log_distribution(3, K)
    divergence = gan_optimum.jensen_shannon_divergence(jnp.asarray(log_p), jnp.asarray(log_q))
    expected = spatial.distance.jensenshannon(np.exp(log_p), np.exp(log_q), axis=1) ** 2
    np.testing.assert_allclose(divergence, expected, rtol=1e-10)


def test_jensen_shannon_ranges_from_zero_to_log_two():
    log_p = jnp.asarray(log_distribution(K), jnp.float32)
    assert abs(float(gan_optimum.jensen_shannon_divergence(log_p, log_p))) < 1e-7
    np.testing.assert_allclose(gan_optimum.optimal_value(log_p, log_p), -np.log(4), rtol=1e-6)
    left, right = jnp.log(jnp.array([0.3, 0.7, 0.0, 0.0])), jnp.log(jnp.array([0.0, 0.0, 0.6, 0.4]))
    np.testing.assert_allclose(gan_optimum.jensen_shannon_divergence(left, right), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(gan_optimum.optimal_value(left, right), 0.0, atol=1e-6)


def test_atoms_of_probability_zero_leave_value_and_gradient_finite():
    log_p, log_q = jnp.log(jnp.array([0.3, 0.7, 0.0, 0.0])), jnp.log(jnp.array([0.5, 0.0, 0.5, 0.0]))
    value, gradients = jax.value_and_grad(gan_optimum.jensen_shannon_divergence, argnums=(0, 1))(log_p, log_q)
    expected = spatial.distance.jensenshannon(np.exp(log_p), np.exp(log_q)) ** 2
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    np.testing.assert_array_equal(gan_optimum.optimal_discriminator(log_p, log_q)[1:3], [1.0, 0.0])


def test_the_gradient_of_the_divergence_agrees_with_finite_differences(x64):
    log_q = jnp.asarray(log_distribution(K))
    loss = lambda logits: gan_optimum.jensen_shannon_divergence(jax.nn.log_softmax(logits), log_q)  # noqa: E731
    logits = jnp.asarray(RNG.normal(size=K))
    gradient, h = jax.grad(loss)(logits), 1e-5
    numerical = [(loss(logits + h * e) - loss(logits - h * e)) / (2 * h) for e in np.eye(K)]
    np.testing.assert_allclose(gradient, numerical, atol=1e-9)


FUNCTIONS = [gan_optimum.optimal_discriminator, gan_optimum.jensen_shannon_divergence, gan_optimum.optimal_value]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_densities_of_different_shapes_or_of_integers_are_refused(function):
    with pytest.raises(AssertionError):
        function(jnp.zeros((3, K)), jnp.zeros((1, K)))
    with pytest.raises(AssertionError):
        function(jnp.zeros(K, jnp.int32), jnp.zeros(K, jnp.int32))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_jit_and_vmap_agree_with_the_plain_call(function):
    log_p, log_q = (jnp.asarray(log_distribution(3, 6, 4), jnp.float32) for _ in range(2))
    plain = jnp.stack([function(*row) for row in zip(log_p, log_q, strict=True)])
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(log_p, log_q), plain, rtol=2e-5)
