import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.losses import combine, gan

RNG = np.random.default_rng(0)
B = 6


def floats(*shape, scale=1.0):
    return jnp.asarray(RNG.normal(scale=scale, size=shape), jnp.float32)


def linear_critic(w):
    return lambda x: x.reshape(x.shape[0], -1) @ w


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_the_penalty_of_a_linear_critic_is_exact_at_any_batch_size(batch):
    w, weight = floats(12), 10.0
    real, fake = floats(batch, 2, 2, 3), floats(batch, 2, 2, 3)
    epsilon = jnp.asarray(RNG.uniform(size=batch), jnp.float32)
    terms = {"penalty": gan.gradient_penalty(linear_critic(w), real, fake, epsilon)}
    expected = weight * (np.linalg.norm(np.asarray(w, np.float64)) - 1) ** 2
    assert terms["penalty"].shape == (batch,)
    np.testing.assert_allclose(combine.weighted_sum(terms, penalty=weight), np.full(batch, expected), rtol=1e-5)


def test_the_r1_penalty_of_a_linear_critic_is_half_its_squared_norm():
    w = floats(12)
    expected = 0.5 * np.sum(np.asarray(w, np.float64) ** 2)
    np.testing.assert_allclose(gan.r1_penalty(linear_critic(w), floats(B, 2, 2, 3)), np.full(B, expected), rtol=1e-5)


def quadratic_critic(x):
    return 0.5 * jnp.sum(jnp.square(x), axis=-1)  # its gradient is x


def test_the_penalty_is_per_example_between_data_and_generated_examples():
    real, fake = floats(B, 4), floats(B, 4)
    epsilon = jnp.asarray(RNG.uniform(size=B), jnp.float32)
    between = np.asarray(epsilon)[:, None] * np.asarray(real) + (1 - np.asarray(epsilon)[:, None]) * np.asarray(fake)
    penalty = gan.gradient_penalty(quadratic_critic, real, fake, epsilon)
    np.testing.assert_allclose(penalty, (np.linalg.norm(between, axis=1) - 1) ** 2, rtol=1e-5, atol=1e-6)
    # epsilon = 1 is data.
    at_data = gan.gradient_penalty(quadratic_critic, real, fake, jnp.ones(B))
    np.testing.assert_allclose(at_data, (np.linalg.norm(real, axis=1) - 1) ** 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gan.r1_penalty(quadratic_critic, real), 0.5 * np.sum(np.square(real), axis=1), rtol=1e-5)


def test_the_gradients_of_the_penalties_are_the_closed_forms():
    # d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|, and d/dw 1/2 |w|^2 = w.
    w, real, fake, epsilon = floats(4), floats(B, 4), floats(B, 4), jnp.full((B,), 0.5)
    gradient = jax.grad(lambda w: gan.gradient_penalty(linear_critic(w), real, fake, epsilon).mean())(w)
    norm = np.linalg.norm(w)
    np.testing.assert_allclose(gradient, 2 * (norm - 1) * np.asarray(w) / norm, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda w: gan.r1_penalty(linear_critic(w), real).mean())(w), w, rtol=1e-5)


def test_a_critic_with_zero_gradient_has_penalty_one_and_derivatives_zero():
    real, fake, epsilon = floats(B, 4), floats(B, 4), jnp.full((B,), 0.5)
    penalty = lambda w, fake: gan.gradient_penalty(linear_critic(w), real, fake, epsilon)  # noqa: E731
    np.testing.assert_array_equal(penalty(jnp.zeros(4), fake), np.ones(B))
    gradients = jax.grad(lambda *args: penalty(*args).sum(), argnums=(0, 1))(jnp.zeros(4), fake)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))
    np.testing.assert_array_equal(jax.grad(lambda w: gan.r1_penalty(linear_critic(w), real).sum())(jnp.zeros(4)), 0.0)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_the_penalty_is_finite_at_extreme_gradients(scale):
    w, real, epsilon = scale * jnp.ones(4), floats(B, 4), jnp.full((B,), 0.5)
    penalty_fn = lambda w: gan.gradient_penalty(linear_critic(w), real, -real, epsilon).sum()  # noqa: E731
    value, gradient = jax.value_and_grad(penalty_fn)(w)
    np.testing.assert_allclose(value, B * (2 * scale - 1) ** 2, rtol=1e-5)
    np.testing.assert_allclose(gradient, np.full(4, B * (2 * scale - 1)), rtol=1e-5)


def test_one_epsilon_for_all_examples_or_for_each_pixel_is_refused():
    real = floats(B, 4)
    for epsilon in (jnp.ones(()), jnp.ones(1), jnp.ones((B, 1)), jnp.ones((B, 4))):
        with pytest.raises(AssertionError):
            gan.gradient_penalty(quadratic_critic, real, real, epsilon)
    with pytest.raises(AssertionError):
        gan.gradient_penalty(quadratic_critic, real, real[:1], jnp.ones(B))
    with pytest.raises(AssertionError):
        gan.gradient_penalty(quadratic_critic, real.astype(jnp.int32), real.astype(jnp.int32), jnp.ones(B))
    with pytest.raises(AssertionError):
        gan.r1_penalty(quadratic_critic, real.astype(jnp.int32))


@pytest.mark.parametrize("score_fn", [lambda x: quadratic_critic(x)[:, None], lambda x: quadratic_critic(x).sum()])
def test_scores_that_are_not_one_per_example_are_refused(score_fn):
    real = floats(B, 4)
    with pytest.raises(AssertionError):
        gan.gradient_penalty(score_fn, real, real, jnp.ones(B))
    with pytest.raises(AssertionError):
        gan.r1_penalty(score_fn, real)


def test_penalties_agree_under_jit_and_vmap():
    real, fake, epsilon = floats(3, B, 4), floats(3, B, 4), jnp.asarray(RNG.uniform(size=(3, B)), jnp.float32)
    cases = {
        "gradient_penalty": (functools.partial(gan.gradient_penalty, quadratic_critic), (real, fake, epsilon)),
        "r1_penalty": (functools.partial(gan.r1_penalty, quadratic_critic), (real,)),
        "feature_matching_loss": (gan.feature_matching_loss, (real, fake)),
    }
    for name, (function, arguments) in cases.items():
        plain = jnp.stack([function(*row) for row in zip(*arguments, strict=True)])
        np.testing.assert_allclose(jax.jit(jax.vmap(function))(*arguments), plain, rtol=2e-5, err_msg=name)
