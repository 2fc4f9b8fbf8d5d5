from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gm_jax.ops import distributions

RNG = np.random.default_rng(0)
SHAPE = (4, 5)


def floats(*shape, scale=1.0):
    return RNG.normal(scale=scale, size=shape or SHAPE).astype(np.float32)


def discretized_logistic_oracle(x, mean, log_scale, levels):
    """Difference of distribution functions in float64, taken in the tail in which it does not cancel."""
    step = 1.0 / (levels - 1)
    centre = 2.0 * x * step - 1.0
    upper = np.where(x == levels - 1, np.inf, centre + step)
    lower = np.where(x == 0, -np.inf, centre - step)
    kwargs = {"loc": mean, "scale": np.exp(log_scale)}
    left = stats.logistic.cdf(upper, **kwargs) - stats.logistic.cdf(lower, **kwargs)
    right = stats.logistic.sf(lower, **kwargs) - stats.logistic.sf(upper, **kwargs)
    return np.log(np.where(centre < mean, left, right))


def discretized_normal_oracle(x, mean, std, levels):
    """Difference of distribution functions in float64, taken in the tail in which it does not cancel."""
    upper = np.where(x == levels - 1, np.inf, (2 * x + 1) / (levels - 1) - 1)
    lower = np.where(x == 0, -np.inf, (2 * x - 1) / (levels - 1) - 1)
    left = stats.norm.cdf(upper, mean, std) - stats.norm.cdf(lower, mean, std)
    right = stats.norm.sf(lower, mean, std) - stats.norm.sf(upper, mean, std)
    return np.log(np.where(2 * x / (levels - 1) - 1 < mean, left, right))


# Closed forms.


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_discretized_logistic_log_prob_agrees_with_scipy(levels, dtype):
    x = RNG.integers(0, levels, size=200)
    x[:2] = 0, levels - 1
    mean, log_scale = floats(200, scale=0.5), RNG.uniform(-3.0, 1.0, size=200).astype(np.float32)
    expected = discretized_logistic_oracle(x, mean.astype(np.float64), log_scale.astype(np.float64), levels)
    log_prob = distributions.discretized_logistic_log_prob(
        jnp.asarray(x.astype(dtype)), jnp.asarray(mean), jnp.asarray(log_scale), levels=levels
    )
    np.testing.assert_allclose(log_prob, expected, rtol=2e-5, atol=2e-5)


def test_discretized_logistic_log_prob_is_exact_in_float64(x64):
    x = RNG.integers(0, 256, size=500)
    mean, log_scale = RNG.normal(size=500) * 0.5, RNG.uniform(-2.0, 1.0, size=500)
    log_prob = distributions.discretized_logistic_log_prob(
        jnp.asarray(x), jnp.asarray(mean), jnp.asarray(log_scale), levels=256
    )
    assert log_prob.dtype == jnp.float64
    np.testing.assert_allclose(log_prob, discretized_logistic_oracle(x, mean, log_scale, 256), rtol=1e-9)


def test_discretized_logistic_with_two_levels_is_a_bernoulli():
    mean, log_scale = floats(), floats()
    x = RNG.integers(0, 2, size=SHAPE)
    log_prob = distributions.discretized_logistic_log_prob(x, mean, log_scale, levels=2)
    logits = mean * np.exp(-log_scale)
    bernoulli = distributions.bernoulli_log_prob(x.astype(np.float32), logits)
    np.testing.assert_allclose(log_prob, bernoulli, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_discretized_normal_log_prob_agrees_with_scipy(levels, x64):
    x = RNG.integers(0, levels, size=500)
    x[:2] = 0, levels - 1
    mean, std = RNG.normal(size=500), np.exp(RNG.uniform(-2.5, 1.0, size=500))
    log_prob_fn = jax.jit(partial(distributions.discretized_normal_log_prob, levels=levels))
    log_prob = log_prob_fn(jnp.asarray(x), jnp.asarray(mean), jnp.asarray(2 * np.log(std)))
    # The differences of distribution functions in the oracle are accurate to ten digits.
    np.testing.assert_allclose(log_prob, discretized_normal_oracle(x, mean, std, levels), rtol=1e-9, atol=1e-9)


def test_discretized_normal_log_prob_in_float32_agrees_with_float64():
    mean, std, x = np.meshgrid([-30.0, -0.3, 1 / 255, 3.0], [1e-8, 1e-3, 0.01, 1.0, 1e8], np.arange(0, 256, 5))
    mean, log_var = mean.astype(np.float32), (2 * np.log(std)).astype(np.float32)
    log_prob_fn = partial(distributions.discretized_normal_log_prob, levels=256)

    @jax.jit
    def value_and_gradients(x, mean, log_var):
        log_prob, vjp_fn = jax.vjp(partial(log_prob_fn, x), mean, log_var)
        return log_prob, *vjp_fn(jnp.ones_like(log_prob))

    single = value_and_gradients(jnp.asarray(x), jnp.asarray(mean), jnp.asarray(log_var))
    with jax.enable_x64(True):
        double = value_and_gradients(jnp.asarray(x), *(jnp.asarray(a, jnp.float64) for a in (mean, log_var)))
    for f32, f64 in zip(map(np.asarray, single), map(np.asarray, double), strict=True):
        assert np.all(np.isfinite(f32))
        # A bin of many standard deviations rounds near its edges; its neighbours set the scale.
        scale = 1.0 + np.abs(f64).max(axis=-1, keepdims=True)
        np.testing.assert_array_less(np.abs(f32 - f64) / scale, 1e-4)


def test_a_mixture_log_prob_is_the_weighted_sum_of_its_components():
    components = 3
    x = RNG.integers(0, 17, size=SHAPE)
    logit_weights, means = floats(*SHAPE, components), floats(*SHAPE, components, scale=0.5)
    log_scales = RNG.uniform(-3.0, 0.0, size=(*SHAPE, components)).astype(np.float32)
    component = discretized_logistic_oracle(
        x[..., None], means.astype(np.float64), log_scales.astype(np.float64), levels=17
    )
    weights = special.softmax(logit_weights.astype(np.float64), axis=-1)
    expected = np.log(np.sum(weights * np.exp(component), axis=-1))
    log_prob = distributions.discretized_logistic_mixture_log_prob(
        jnp.asarray(x), jnp.asarray(logit_weights), jnp.asarray(means), jnp.asarray(log_scales), levels=17
    )
    np.testing.assert_allclose(log_prob, expected, rtol=2e-5, atol=2e-5)


# Identities.
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_masses_of_the_levels_sum_to_one(levels):
    # 1 / 255 is an edge between two bins: at scale 1e-6 the rounding of the edges decides the bin.
    mean, scale, x = np.meshgrid([-1.0, -0.3, 1 / 255, 0.7, 3.0], [1e-6, 1e-3, 0.05, 1.0, 100.0], np.arange(levels))
    log_prob = distributions.discretized_logistic_log_prob(
        jnp.asarray(x), jnp.asarray(mean, jnp.float32), jnp.asarray(np.log(scale), jnp.float32), levels=levels
    )
    mass = np.exp(np.asarray(log_prob, np.float64))
    np.testing.assert_allclose(mass.sum(axis=-1), np.ones(x.shape[:-1]), atol=5e-6)
    assert np.all(log_prob <= 0)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_masses_of_the_levels_sum_to_one_under_a_normal(levels, x64):
    mean, std, x = np.meshgrid([-1.0, -0.3, 1 / 255, 0.7, 3.0], [1e-8, 1e-3, 0.05, 1.0, 1e8], np.arange(levels))
    log_prob_fn = jax.jit(partial(distributions.discretized_normal_log_prob, levels=levels))
    log_prob = log_prob_fn(jnp.asarray(x), jnp.asarray(mean), jnp.asarray(2 * np.log(std)))
    np.testing.assert_allclose(np.exp(log_prob).sum(axis=-1), np.ones(x.shape[:-1]), atol=1e-11)


@pytest.mark.parametrize("levels", [17, 256])
def test_the_masses_of_the_levels_sum_to_one_under_a_mixture(levels):
    logit_weights = jnp.array([0.3, -1.0, 2.0, 0.0])
    means = jnp.array([-0.4, 0.1, 0.8, 2.0])
    log_scales = jnp.log(jnp.array([1e-6, 0.1, 1.0, 0.3]))
    log_prob = distributions.discretized_logistic_mixture_log_prob(
        jnp.arange(levels), *(jnp.tile(p, (levels, 1)) for p in (logit_weights, means, log_scales)), levels=levels
    )
    assert np.sum(np.exp(np.asarray(log_prob, np.float64))) == pytest.approx(1.0, abs=5e-6)


def test_a_mixture_of_one_is_its_component():
    x = jnp.asarray(RNG.integers(0, 17, size=SHAPE))
    mean, log_scale = jnp.asarray(floats(scale=0.5)), jnp.asarray(floats() - 2)
    mixture = distributions.discretized_logistic_mixture_log_prob(
        x, jnp.asarray(floats(*SHAPE, 1)), mean[..., None], log_scale[..., None], levels=17
    )
    single = distributions.discretized_logistic_log_prob(x, mean, log_scale, levels=17)
    np.testing.assert_allclose(mixture, single, rtol=1e-6, atol=1e-6)


def test_a_discretized_logistic_mirrors_with_its_mean():
    levels = 17
    x = jnp.arange(levels)
    mean, log_scale = jnp.asarray(floats(levels, scale=0.5)), jnp.asarray(floats(levels) - 1)
    there = distributions.discretized_logistic_log_prob(x, mean, log_scale, levels=levels)
    back = distributions.discretized_logistic_log_prob(levels - 1 - x, -mean, log_scale, levels=levels)
    np.testing.assert_allclose(there, back, rtol=1e-5, atol=1e-5)


def test_a_wide_discretized_logistic_is_density_times_bin_width(x64):
    x = jnp.arange(1, 255)
    mean, log_scale = jnp.full(254, 0.2), jnp.full(254, np.log(3.0))
    log_prob = distributions.discretized_logistic_log_prob(x, mean, log_scale, levels=256)
    expected = stats.logistic.logpdf(2 * np.arange(1, 255) / 255 - 1, 0.2, 3.0) + np.log(2 / 255)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)


def test_logistic_samples_fall_into_bins_as_often_as_their_mass():
    levels, mean, scale, draws = 17, 0.3, 0.2, 20_000
    samples = mean + scale * np.asarray(jax.random.logistic(jax.random.key(0), (draws,)), np.float64)
    level = np.clip(np.round((samples + 1) / 2 * (levels - 1)), 0, levels - 1).astype(int)
    frequency = np.bincount(level, minlength=levels) / draws
    mass = np.exp(
        distributions.discretized_logistic_log_prob(
            jnp.arange(levels), jnp.full(levels, mean), jnp.full(levels, np.log(scale)), levels=levels
        )
    )
    chi_squared = draws * np.sum((frequency - mass) ** 2 / mass)
    assert chi_squared < stats.chi2.ppf(0.9973, levels - 1)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_discretized_logistic_is_finite_at_extreme_scales(levels):
    mean, log_scale, x = np.meshgrid(
        [-100.0, -1.0, 1 / 255, 100.0], [np.log(1e-6), np.log(1e-8), -80.0, 80.0], np.arange(levels)
    )
    parameters = jnp.asarray(mean, jnp.float32), jnp.asarray(log_scale, jnp.float32)
    log_prob, vjp_fn = jax.vjp(
        lambda *parameters: distributions.discretized_logistic_log_prob(jnp.asarray(x), *parameters, levels=levels),
        *parameters,
    )
    assert np.all(np.isfinite(log_prob))
    for gradient in vjp_fn(jnp.ones_like(log_prob)):
        assert np.all(np.isfinite(gradient))


def test_a_discretized_logistic_far_from_its_data_has_a_gradient_towards_them():
    # A mass of exp(-900000) underflows; its logarithm and the gradient that training needs do not.
    log_prob_fn = lambda mean: distributions.discretized_logistic_log_prob(  # noqa: E731
        jnp.array(200), mean, jnp.float32(np.log(1e-6)), levels=256
    )
    log_prob, gradient = jax.value_and_grad(log_prob_fn)(jnp.float32(-0.4))
    distance = (399 / 255 - 1) + 0.4
    assert float(log_prob) == pytest.approx(-distance * 1e6, rel=1e-5)
    assert float(gradient) == pytest.approx(1e6, rel=1e-5)


def test_a_mixture_with_a_vanishing_component_has_finite_gradients():
    def total(logit_weights, means, log_scales):
        x = jnp.arange(17)
        tiled = (jnp.tile(p, (17, 1)) for p in (logit_weights, means, log_scales))
        return distributions.discretized_logistic_mixture_log_prob(x, *tiled, levels=17).sum()

    parameters = (jnp.array([0.0, -100.0, 100.0]), jnp.array([0.0, 50.0, 0.1]), jnp.log(jnp.array([1.0, 1e-6, 1e-6])))
    value, gradients = jax.value_and_grad(total, argnums=(0, 1, 2))(*parameters)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradients))


def test_a_single_level_is_refused():
    for log_prob_fn in (distributions.discretized_logistic_log_prob, distributions.discretized_normal_log_prob):
        with pytest.raises(ValueError, match="levels"):
            log_prob_fn(jnp.zeros(2, jnp.int32), jnp.zeros(2), jnp.zeros(2), levels=1)
