import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gm_jax.losses import likelihoods

RNG = np.random.default_rng(0)
B, LEVELS, M = 6, 5, 3
each_event = pytest.mark.parametrize("event", [(7,), (3, 3, 2)])


def floats(*shape, scale=1.0):
    return jnp.asarray(RNG.normal(scale=scale, size=shape), jnp.float32)


def bits(*shape):
    return jnp.asarray(RNG.integers(0, 2, shape), jnp.float32)


def draw_levels(*shape):
    return jnp.asarray(RNG.integers(0, LEVELS, shape), jnp.int32)


def arguments(name, event=(7,), scale=1.0, batch=B):
    """(x, the parameters of each loss)."""
    if name == "bernoulli_nll":
        return bits(batch, *event), (floats(batch, *event, scale=scale),)
    if name == "categorical_nll":
        return draw_levels(batch, *event), (floats(batch, *event, LEVELS, scale=scale),)
    if name == "normal_nll":
        return floats(batch, *event), tuple(floats(batch, *event, scale=scale) for _ in range(2))
    if name == "discretized_logistic_nll":
        return draw_levels(batch, *event), tuple(floats(batch, *event, scale=scale) for _ in range(2))
    return draw_levels(batch, *event), tuple(floats(batch, *event, M, scale=scale) for _ in range(3))


def loss(name):
    function = getattr(likelihoods, name)
    if name.startswith("discretized"):
        return lambda *args: function(*args, levels=LEVELS)
    return function


DISCRETE = ["bernoulli_nll", "categorical_nll", "discretized_logistic_nll", "discretized_logistic_mixture_nll"]
each_loss = pytest.mark.parametrize("name", [*DISCRETE, "normal_nll"])


# Closed forms.


@each_event
def test_bernoulli_nll_is_the_sum_of_scipy_log_masses(event):
    x, (logits,) = arguments("bernoulli_nll", event, scale=2.0)
    log_mass = stats.bernoulli.logpmf(np.asarray(x), special.expit(np.asarray(logits, np.float64)))
    np.testing.assert_allclose(likelihoods.bernoulli_nll(x, logits), -log_mass.reshape(B, -1).sum(axis=1), rtol=1e-5)


@each_event
def test_categorical_nll_is_the_log_of_the_chosen_softmax(event):
    x, (logits,) = arguments("categorical_nll", event, scale=2.0)
    log_mass = np.log(special.softmax(np.asarray(logits, np.float64), axis=-1)).reshape(-1, LEVELS)
    chosen = log_mass[np.arange(x.size), np.asarray(x).ravel()].reshape(B, -1)
    np.testing.assert_allclose(likelihoods.categorical_nll(x, logits), -chosen.sum(axis=1), rtol=1e-5)


def test_mixture_nll_is_the_mass_of_the_bins_under_scipy_logistics():
    x, (logit_weights, means, log_scales) = arguments("discretized_logistic_mixture_nll")
    weights = special.softmax(np.asarray(logit_weights, np.float64), axis=-1)
    means64, scales = np.asarray(means, np.float64), np.exp(np.asarray(log_scales, np.float64))
    level = np.asarray(x)[..., None]
    half = 1.0 / (LEVELS - 1)
    center = 2.0 * half * level - 1.0
    above = np.where(level == LEVELS - 1, 1.0, stats.logistic.cdf(center + half, means64, scales))
    below = np.where(level == 0, 0.0, stats.logistic.cdf(center - half, means64, scales))
    expected = -np.log(np.sum(weights * (above - below), axis=-1)).sum(axis=1)
    nll = likelihoods.discretized_logistic_mixture_nll(x, logit_weights, means, log_scales, levels=LEVELS)
    np.testing.assert_allclose(nll, expected, rtol=1e-4)


@pytest.mark.parametrize("event", [(7,), (3, 3, 2)])
def test_normal_nll_is_the_sum_of_scipy_log_densities(event):
    x, mean, log_var = (floats(B, *event) for _ in range(3))
    x64, m, lv = (np.asarray(a, np.float64) for a in (x, mean, log_var))
    log_density = stats.norm.logpdf(x64, m, np.exp(0.5 * lv))
    np.testing.assert_allclose(
        likelihoods.normal_nll(x, mean, log_var), -log_density.reshape(B, -1).sum(axis=1), rtol=1e-5
    )


def test_normal_nll_at_unit_variance_is_half_the_squared_error_plus_its_constant():
    x, mean = floats(B, 7), floats(B, 7)
    x64, m = (np.asarray(a, np.float64) for a in (x, mean))
    expected = 0.5 * np.sum((x64 - m) ** 2, axis=1) + 7 / 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(likelihoods.normal_nll(x, mean, jnp.zeros((B, 7))), expected, rtol=1e-5)


@pytest.mark.parametrize("levels", [17, 256])
def test_discretized_logistic_nll_is_the_mass_of_scipy_bins(levels):
    shape = (B, 3, 3, 1)
    x = RNG.integers(1, levels - 1, size=shape)
    mean, log_scale = floats(*shape, scale=0.3), floats(*shape, scale=0.3) - 1.0
    m, ls = (np.asarray(a, np.float64) for a in (mean, log_scale))
    edges = (2 * x + np.array([-1, 1]).reshape(2, 1, 1, 1, 1)) / (levels - 1) - 1
    lower, upper = stats.logistic.cdf(edges, m, np.exp(ls))
    expected = -np.log(upper - lower).reshape(B, -1).sum(axis=1)
    nll = likelihoods.discretized_logistic_nll(jnp.asarray(x, jnp.uint8), mean, log_scale, levels=levels)
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


# Identities.


def test_uniform_predictions_cost_log_of_the_levels_per_dimension():
    nll = likelihoods.bernoulli_nll(bits(B, 3, 3, 2), jnp.zeros((B, 3, 3, 2)))
    np.testing.assert_allclose(nll, 18 * np.log(2.0), rtol=1e-6)
    nll = likelihoods.categorical_nll(draw_levels(B, 7), jnp.zeros((B, 7, LEVELS)))
    np.testing.assert_allclose(nll, 7 * np.log(LEVELS), rtol=1e-6)


def test_two_levels_are_a_bernoulli():
    x, (logits,) = arguments("bernoulli_nll")
    pair = jnp.stack([jnp.zeros_like(logits), logits], axis=-1)
    np.testing.assert_allclose(
        likelihoods.categorical_nll(x.astype(jnp.int32), pair), likelihoods.bernoulli_nll(x, logits), rtol=1e-5
    )


def test_the_gradient_in_the_logits_is_probability_minus_data():
    x, (logits,) = arguments("bernoulli_nll")
    gradient = jax.grad(lambda logits: likelihoods.bernoulli_nll(x, logits).sum())(logits)
    np.testing.assert_allclose(gradient, special.expit(np.asarray(logits)) - np.asarray(x), atol=1e-6)


@pytest.mark.parametrize("name", DISCRETE)
def test_the_masses_of_all_levels_sum_to_one(name):
    _, parameters = arguments(name, event=(1,), batch=1)
    num_levels = 2 if name == "bernoulli_nll" else LEVELS
    x = jnp.arange(num_levels, dtype=jnp.float32 if name == "bernoulli_nll" else jnp.int32)[:, None]
    repeated = (jnp.repeat(parameter, num_levels, axis=0) for parameter in parameters)
    assert float(jnp.exp(-loss(name)(x, *repeated)).sum()) == pytest.approx(1.0, abs=1e-5)


def test_a_discretized_logistic_decoder_is_a_distribution_over_images():
    levels = 5
    images = jnp.stack(jnp.meshgrid(jnp.arange(levels), jnp.arange(levels), indexing="ij"), axis=-1).reshape(-1, 2)
    mean, log_scale = (jnp.tile(jnp.array([p]), (levels**2, 1)) for p in ([0.4, -0.9], [-1.0, 0.3]))
    nll = likelihoods.discretized_logistic_nll(images, mean, log_scale, levels=levels)
    assert float(jnp.exp(-nll).sum()) == pytest.approx(1.0, abs=1e-5)


# Extremes.


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("value", [-80.0, 80.0])
def test_extreme_parameters_give_finite_value_and_gradient(name, value):
    x, parameters = arguments(name)
    parameters = tuple(jnp.full_like(parameter, value) for parameter in parameters)
    nll, gradient = jax.value_and_grad(lambda p: loss(name)(x, *p).sum())(parameters)
    assert np.isfinite(nll)
    assert all(np.isfinite(leaf).all() for leaf in gradient)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_logit_of_100_costs_0_nats_if_right_and_100_if_wrong(sign):
    logits = jnp.full((1, 1), 100.0 * sign)
    right = jnp.full((1, 1), 0.5 * (1.0 + sign))
    assert float(likelihoods.bernoulli_nll(right, logits)[0]) == pytest.approx(0.0, abs=1e-6)
    assert float(likelihoods.bernoulli_nll(1.0 - right, logits)[0]) == pytest.approx(100.0)


@pytest.mark.parametrize("logit", [-100.0, 100.0])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_bernoulli_nll_is_finite_at_extreme_logits(logit, value):
    x, logits = jnp.full((1, 3), value), jnp.full((1, 3), logit)
    nll, gradient = jax.value_and_grad(lambda logits: likelihoods.bernoulli_nll(x, logits).sum())(logits)
    assert float(nll) == pytest.approx(300.0 if value != (logit > 0) else 0.0, abs=1e-5)
    np.testing.assert_allclose(gradient, np.full((1, 3), float(logit > 0) - value), atol=1e-6)


@pytest.mark.parametrize("levels", [17, 256])
def test_discretized_logistic_nll_is_finite_at_a_vanishing_scale(levels):
    x = jnp.arange(levels)[None]
    mean, log_scale = jnp.full((1, levels), 0.1), jnp.full((1, levels), np.log(1e-6), jnp.float32)
    nll_fn = lambda mean, log_scale: likelihoods.discretized_logistic_nll(x, mean, log_scale, levels=levels).sum()  # noqa: E731
    nll, gradients = jax.value_and_grad(nll_fn, argnums=(0, 1))(mean, log_scale)
    assert np.isfinite(nll)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


# Shapes.


@each_loss
def test_a_wrong_shape_or_dtype_raises(name):
    x, parameters = arguments(name)
    with pytest.raises(AssertionError):
        loss(name)(x[:, 0], *(parameter[:, 0] for parameter in parameters))
    with pytest.raises(AssertionError):
        loss(name)(x[:, :-1], *parameters)
    with pytest.raises(AssertionError):  # would broadcast
        loss(name)(x[:1], *parameters)
    with pytest.raises(AssertionError):
        loss(name)(x, *(parameter.astype(jnp.int32) for parameter in parameters))
    with pytest.raises(AssertionError):
        loss(name)(x.astype(jnp.int32 if x.dtype == jnp.float32 else jnp.float32), *parameters)


@each_loss
def test_jit_and_vmap_agree(name):
    x, parameters = arguments(name)
    plain = loss(name)(x, *parameters)
    assert (plain.shape, plain.dtype) == ((B,), jnp.float32)
    np.testing.assert_allclose(jax.jit(loss(name))(x, *parameters), plain, rtol=1e-5)
    mapped = jax.vmap(loss(name))(x[:, None], *(parameter[:, None] for parameter in parameters))[:, 0]
    np.testing.assert_allclose(mapped, plain, rtol=1e-5)


def test_an_image_scaled_to_the_unit_interval_is_refused():
    x = jnp.asarray([[0.5, 0.99]])
    with pytest.raises(AssertionError):
        likelihoods.discretized_logistic_nll(x, jnp.zeros_like(x), jnp.zeros_like(x), levels=256)
