import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gm_jax.losses import autoregressive

RNG = np.random.default_rng(0)
B, LEVELS, M = 6, 5, 3
each_event = pytest.mark.parametrize("event", [(7,), (3, 3, 2)])


def floats(*shape, scale=1.0):
    return jnp.asarray(RNG.normal(scale=scale, size=shape), jnp.float32)


def bits(*shape):
    return jnp.asarray(RNG.integers(0, 2, shape), jnp.float32)


def levels(*shape):
    return jnp.asarray(RNG.integers(0, LEVELS, shape), jnp.int32)


def arguments(name, event=(7,), scale=1.0, batch=B):
    """(x, the parameters of each loss)."""
    if name == "bernoulli_nll":
        return bits(batch, *event), (floats(batch, *event, scale=scale),)
    if name == "categorical_nll":
        return levels(batch, *event), (floats(batch, *event, LEVELS, scale=scale),)
    return levels(batch, *event), tuple(floats(batch, *event, M, scale=scale) for _ in range(3))


def loss(name):
    function = getattr(autoregressive, name)
    if name == "discretized_logistic_mixture_nll":
        return lambda *args: function(*args, levels=LEVELS)
    return function


each_loss = pytest.mark.parametrize("name", ["bernoulli_nll", "categorical_nll", "discretized_logistic_mixture_nll"])


# Closed forms.


@each_event
def test_bernoulli_nll_is_scipy_s_sum_over_the_event(event):
    x, (logits,) = arguments("bernoulli_nll", event, scale=2.0)
    log_mass = stats.bernoulli.logpmf(np.asarray(x), special.expit(np.asarray(logits, np.float64)))
    np.testing.assert_allclose(autoregressive.bernoulli_nll(x, logits), -log_mass.reshape(B, -1).sum(axis=1), rtol=1e-5)


@each_event
def test_categorical_nll_is_the_log_of_the_chosen_softmax(event):
    x, (logits,) = arguments("categorical_nll", event, scale=2.0)
    log_mass = np.log(special.softmax(np.asarray(logits, np.float64), axis=-1)).reshape(-1, LEVELS)
    chosen = log_mass[np.arange(x.size), np.asarray(x).ravel()].reshape(B, -1)
    np.testing.assert_allclose(autoregressive.categorical_nll(x, logits), -chosen.sum(axis=1), rtol=1e-5)


def test_mixture_nll_is_the_mass_of_the_bins_under_scipy_s_logistics():
    x, (logit_weights, means, log_scales) = arguments("discretized_logistic_mixture_nll")
    weights = special.softmax(np.asarray(logit_weights, np.float64), axis=-1)
    means64, scales = np.asarray(means, np.float64), np.exp(np.asarray(log_scales, np.float64))
    level = np.asarray(x)[..., None]
    half = 1.0 / (LEVELS - 1)
    center = 2.0 * half * level - 1.0
    above = np.where(level == LEVELS - 1, 1.0, stats.logistic.cdf(center + half, means64, scales))
    below = np.where(level == 0, 0.0, stats.logistic.cdf(center - half, means64, scales))
    expected = -np.log(np.sum(weights * (above - below), axis=-1)).sum(axis=1)
    nll = autoregressive.discretized_logistic_mixture_nll(x, logit_weights, means, log_scales, levels=LEVELS)
    np.testing.assert_allclose(nll, expected, rtol=1e-4)


# Identities.


def test_no_information_costs_the_log_of_the_number_of_levels_in_each_dimension():
    nll = autoregressive.bernoulli_nll(bits(B, 3, 3, 2), jnp.zeros((B, 3, 3, 2)))
    np.testing.assert_allclose(nll, 18 * np.log(2.0), rtol=1e-6)
    nll = autoregressive.categorical_nll(levels(B, 7), jnp.zeros((B, 7, LEVELS)))
    np.testing.assert_allclose(nll, 7 * np.log(LEVELS), rtol=1e-6)


def test_two_levels_are_a_bernoulli():
    x, (logits,) = arguments("bernoulli_nll")
    pair = jnp.stack([jnp.zeros_like(logits), logits], axis=-1)
    np.testing.assert_allclose(
        autoregressive.categorical_nll(x.astype(jnp.int32), pair), autoregressive.bernoulli_nll(x, logits), rtol=1e-5
    )


def test_the_gradient_in_the_logits_is_probability_minus_data():
    x, (logits,) = arguments("bernoulli_nll")
    gradient = jax.grad(lambda logits: autoregressive.bernoulli_nll(x, logits).sum())(logits)
    np.testing.assert_allclose(gradient, special.expit(np.asarray(logits)) - np.asarray(x), atol=1e-6)


@each_loss
def test_the_masses_of_all_levels_sum_to_one(name):
    _, parameters = arguments(name, event=(1,), batch=1)
    num_levels = 2 if name == "bernoulli_nll" else LEVELS
    x = jnp.arange(num_levels, dtype=jnp.float32 if name == "bernoulli_nll" else jnp.int32)[:, None]
    repeated = (jnp.repeat(parameter, num_levels, axis=0) for parameter in parameters)
    assert float(jnp.exp(-loss(name)(x, *repeated)).sum()) == pytest.approx(1.0, abs=1e-5)


# Extremes.


@each_loss
@pytest.mark.parametrize("value", [-80.0, 80.0])
def test_extreme_parameters_give_finite_value_and_gradient(name, value):
    x, parameters = arguments(name)
    parameters = tuple(jnp.full_like(parameter, value) for parameter in parameters)
    nll, gradient = jax.value_and_grad(lambda p: loss(name)(x, *p).sum())(parameters)
    assert np.isfinite(nll)
    assert all(np.isfinite(leaf).all() for leaf in gradient)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_certain_logit_of_100_costs_nothing_when_right_and_100_nats_when_wrong(sign):
    logits = jnp.full((1, 1), 100.0 * sign)
    right = jnp.full((1, 1), 0.5 * (1.0 + sign))
    assert float(autoregressive.bernoulli_nll(right, logits)[0]) == pytest.approx(0.0, abs=1e-6)
    assert float(autoregressive.bernoulli_nll(1.0 - right, logits)[0]) == pytest.approx(100.0)


# Shapes.


@each_loss
def test_a_wrong_shape_or_dtype_raises(name):
    x, parameters = arguments(name)
    with pytest.raises(AssertionError):
        loss(name)(x[:, 0], *(parameter[:, 0] for parameter in parameters))
    with pytest.raises(AssertionError):
        loss(name)(x[:, :-1], *parameters)
    with pytest.raises(AssertionError):
        loss(name)(x, *(parameter.astype(jnp.int32) for parameter in parameters))


@each_loss
def test_jit_and_vmap_agree(name):
    x, parameters = arguments(name)
    plain = loss(name)(x, *parameters)
    assert plain.shape == (B,)
    np.testing.assert_allclose(jax.jit(loss(name))(x, *parameters), plain, rtol=1e-5)
    mapped = jax.vmap(loss(name))(x[:, None], *(parameter[:, None] for parameter in parameters))[:, 0]
    np.testing.assert_allclose(mapped, plain, rtol=1e-5)
