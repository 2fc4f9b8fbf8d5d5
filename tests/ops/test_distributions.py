from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gm_jax.ops import distributions, reductions

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


def test_normal_log_prob_agrees_with_scipy():
    x, mean, log_var = floats(), floats(), floats()
    expected = stats.norm.logpdf(x.astype(np.float64), mean, np.exp(0.5 * log_var.astype(np.float64)))
    np.testing.assert_allclose(distributions.normal_log_prob(x, mean, log_var), expected, rtol=2e-6, atol=2e-6)


def test_standard_normal_log_prob_agrees_with_scipy():
    x = floats(scale=3.0)
    expected = stats.norm.logpdf(x.astype(np.float64))
    np.testing.assert_allclose(distributions.standard_normal_log_prob(x), expected, rtol=1e-6)


def test_standard_logistic_log_prob_agrees_with_scipy():
    x = floats(scale=5.0)
    expected = stats.logistic.logpdf(x.astype(np.float64))
    np.testing.assert_allclose(distributions.standard_logistic_log_prob(x), expected, rtol=1e-6)


def test_bernoulli_log_prob_agrees_with_scipy():
    logits = floats(scale=3.0)
    for value in (0.0, 1.0):
        expected = stats.bernoulli.logpmf(value, special.expit(logits.astype(np.float64)))
        log_prob = distributions.bernoulli_log_prob(jnp.full(SHAPE, value), logits)
        np.testing.assert_allclose(log_prob, expected, rtol=2e-6, atol=1e-6)


def test_categorical_log_prob_is_the_float64_log_softmax():
    logits = floats(*SHAPE, 7, scale=3.0)
    x = RNG.integers(0, 7, size=SHAPE)
    log_softmax = special.log_softmax(logits.astype(np.float64), axis=-1)
    expected = np.take_along_axis(log_softmax, x[..., None], axis=-1)[..., 0]
    log_prob = distributions.categorical_log_prob(jnp.asarray(x, jnp.int32), jnp.asarray(logits))
    np.testing.assert_allclose(log_prob, expected, rtol=2e-6, atol=2e-6)


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


def test_normal_kl_is_the_float64_closed_form():
    mean_q, log_var_q, mean_p, log_var_p = (floats() for _ in range(4))
    mq, sq, mp, sp = (a.astype(np.float64) for a in (mean_q, np.exp(0.5 * log_var_q), mean_p, np.exp(0.5 * log_var_p)))
    expected = np.log(sp / sq) + (sq**2 + (mq - mp) ** 2) / (2 * sp**2) - 0.5
    kl = distributions.normal_kl(mean_q, log_var_q, mean_p, log_var_p)
    np.testing.assert_allclose(kl, expected, rtol=1e-5, atol=1e-6)


def test_kl_to_standard_by_hand():
    # N(1, 4): 1/2 (4 + 1 - log 4 - 1) = 2 - log 2.
    kl = distributions.normal_kl_to_standard(jnp.array([1.0]), jnp.log(jnp.array([4.0])))
    np.testing.assert_allclose(kl, [2 - np.log(2)], rtol=1e-6)


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


@pytest.mark.parametrize("order", ["q||p", "p||q"])
def test_normal_kl_is_the_mean_log_ratio_of_samples(order, x64):
    q, p = (0.7, -0.6), (-0.2, 0.5)
    first, second = (q, p) if order == "q||p" else (p, q)
    draws = 40_000
    eps = jax.random.normal(jax.random.key(3), (draws,))
    z = first[0] + np.exp(0.5 * first[1]) * eps
    log_ratio = distributions.normal_log_prob(z, *(jnp.full(draws, a) for a in first))
    log_ratio -= distributions.normal_log_prob(z, *(jnp.full(draws, a) for a in second))
    kl = distributions.normal_kl(*(jnp.array([a]) for a in (*first, *second)))[0]
    assert abs(float(log_ratio.mean() - kl)) < 3 * float(log_ratio.std()) / np.sqrt(draws)


def test_kl_to_standard_is_kl_to_a_standard_normal():
    mean, log_var = jnp.asarray(floats()), jnp.asarray(floats())
    zeros = jnp.zeros(SHAPE)
    np.testing.assert_allclose(
        distributions.normal_kl_to_standard(mean, log_var),
        distributions.normal_kl(mean, log_var, zeros, zeros),
        rtol=1e-6,
    )


def test_standard_normal_log_prob_is_the_normal_at_mean_0_variance_1():
    x, zeros = jnp.asarray(floats()), jnp.zeros(SHAPE)
    np.testing.assert_allclose(
        distributions.standard_normal_log_prob(x), distributions.normal_log_prob(x, zeros, zeros), rtol=1e-6
    )


def test_kl_is_zero_at_the_prior():
    zeros = jnp.zeros(SHAPE)
    np.testing.assert_array_equal(distributions.normal_kl_to_standard(zeros, zeros), zeros)


def test_kl_of_a_normal_to_itself_is_zero():
    mean, log_var = jnp.asarray(floats()), jnp.asarray(floats(scale=3.0))
    np.testing.assert_array_equal(distributions.normal_kl(mean, log_var, mean, log_var), np.zeros(SHAPE))


def test_kl_is_not_negative_near_zero():
    magnitude = jnp.logspace(-12, 1, 4001, dtype=jnp.float32)
    log_var = jnp.concatenate([-magnitude, magnitude])
    zeros = jnp.zeros_like(log_var)
    assert np.all(jax.jit(distributions.normal_kl_to_standard)(zeros, log_var) >= 0)
    assert np.all(jax.jit(distributions.normal_kl)(zeros, log_var, zeros, zeros) >= 0)


def test_the_score_of_a_normal_is_minus_the_standardised_distance():
    x, mean, log_var = (jnp.asarray(floats()) for _ in range(3))
    score = jax.grad(lambda x: distributions.normal_log_prob(x, mean, log_var).sum())(x)
    np.testing.assert_allclose(score, -(x - mean) * jnp.exp(-log_var), rtol=1e-5)


def test_the_logit_gradient_of_a_bernoulli_is_data_minus_probability():
    logits = jnp.asarray(floats(scale=3.0))
    x = jnp.asarray(RNG.integers(0, 2, size=SHAPE), jnp.float32)
    gradient = jax.grad(lambda logits: distributions.bernoulli_log_prob(x, logits).sum())(logits)
    np.testing.assert_allclose(gradient, x - jax.nn.sigmoid(logits), rtol=1e-5, atol=1e-6)


def test_bernoulli_masses_sum_to_one():
    logits = jnp.asarray(floats(scale=5.0))
    masses = [jnp.exp(distributions.bernoulli_log_prob(jnp.full(SHAPE, value), logits)) for value in (0.0, 1.0)]
    np.testing.assert_allclose(sum(masses), np.ones(SHAPE), rtol=2e-6)


def test_a_categorical_of_two_is_a_bernoulli():
    logits = jnp.asarray(floats(scale=3.0))
    x = jnp.asarray(RNG.integers(0, 2, size=SHAPE), jnp.int32)
    two = jnp.stack([jnp.zeros(SHAPE), logits], axis=-1)
    np.testing.assert_allclose(
        distributions.categorical_log_prob(x, two),
        distributions.bernoulli_log_prob(x.astype(jnp.float32), logits),
        rtol=1e-5,
        atol=1e-6,
    )


def test_categorical_log_prob_ignores_a_shift_of_the_logits():
    logits = jnp.asarray(floats(*SHAPE, 7))
    x = jnp.asarray(RNG.integers(0, 7, size=SHAPE), jnp.int32)
    np.testing.assert_allclose(
        distributions.categorical_log_prob(x, logits + 3.0),
        distributions.categorical_log_prob(x, logits),
        rtol=1e-5,
        atol=1e-5,
    )


# Extremes.


@pytest.mark.parametrize("logit", [-100.0, 100.0, -1e4, 1e4])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_bernoulli_is_finite_at_extreme_logits(logit, value):
    log_prob, gradient = jax.value_and_grad(lambda logit: distributions.bernoulli_log_prob(jnp.float32(value), logit))(
        logit
    )
    assert float(log_prob) == pytest.approx(min(0.0, logit if value else -logit), abs=1e-6)
    assert float(gradient) == pytest.approx(value - (logit > 0), abs=1e-6)


@pytest.mark.parametrize("logit", [-100.0, 100.0, -1e4, 1e4])
def test_a_categorical_is_finite_at_extreme_logits(logit):
    logits = jnp.array([logit, 0.0, 1.0])
    log_prob_fn = lambda logits: distributions.categorical_log_prob(jnp.int32(0), logits)  # noqa: E731
    log_prob, gradient = jax.value_and_grad(log_prob_fn)(logits)
    expected = special.log_softmax(np.asarray(logits, np.float64))[0]
    assert float(log_prob) == pytest.approx(expected, rel=1e-6)
    assert np.all(np.isfinite(gradient))


def test_a_class_beyond_the_logits_gives_nan():
    assert np.isnan(distributions.categorical_log_prob(jnp.int32(3), jnp.zeros(3)))


@pytest.mark.parametrize("x", [-1e30, -100.0, 0.0, 100.0, 1e30])
def test_a_standard_logistic_is_finite_far_out(x):
    # Its tails are exponential: exp(x) itself overflows from 89 on.
    log_prob, gradient = jax.value_and_grad(distributions.standard_logistic_log_prob)(x)
    assert float(log_prob) == pytest.approx(stats.logistic.logpdf(x), rel=1e-6)
    assert float(gradient) == -np.tanh(x / 2)


@pytest.mark.parametrize("std", [1e-8, 1e8])
@pytest.mark.parametrize("distance", [0.0, 1e-8, 1.0])
def test_a_normal_is_finite_at_extreme_standard_deviations(std, distance):
    arguments = (jnp.float32(distance), jnp.float32(0.0), jnp.float32(2 * np.log(std)))
    log_prob, gradients = jax.value_and_grad(distributions.normal_log_prob, argnums=(0, 1, 2))(*arguments)
    expected = stats.norm.logpdf(distance, 0.0, std)
    assert float(log_prob) == pytest.approx(expected, rel=1e-5)
    assert np.all(np.isfinite(gradients))


def test_a_normal_handles_a_distance_whose_square_underflows():
    # (1e-25)^2 is 0 in float32; relative to a standard deviation of 1e-25 it is 1.
    log_var = jnp.float32(2 * np.log(1e-25))
    log_prob = distributions.normal_log_prob(jnp.float32(1e-25), jnp.float32(0.0), log_var)
    assert float(log_prob) == pytest.approx(stats.norm.logpdf(1e-25, 0.0, 1e-25), rel=1e-4)


@pytest.mark.parametrize("std_q", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("std_p", [1e-8, 1.0, 1e8])
def test_a_kl_is_finite_at_extreme_standard_deviations(std_q, std_p):
    arguments = [jnp.float32(a) for a in (0.5, 2 * np.log(std_q), -0.5, 2 * np.log(std_p))]
    kl, gradients = jax.value_and_grad(distributions.normal_kl, argnums=(0, 1, 2, 3))(*arguments)
    expected = np.log(std_p / std_q) + (std_q**2 + 1.0) / (2 * std_p**2) - 0.5
    assert float(kl) == pytest.approx(expected, rel=1e-4)
    assert np.all(np.isfinite(gradients))


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


# Shape contract.


CASES = {
    "normal_log_prob": (distributions.normal_log_prob, (floats(), floats(), floats())),
    "standard_normal_log_prob": (distributions.standard_normal_log_prob, (floats(),)),
    "standard_logistic_log_prob": (distributions.standard_logistic_log_prob, (floats(),)),
    "bernoulli_log_prob": (distributions.bernoulli_log_prob, (np.ones(SHAPE, np.float32), floats())),
    "categorical_log_prob": (
        distributions.categorical_log_prob,
        (RNG.integers(0, 7, size=SHAPE).astype(np.int32), floats(*SHAPE, 7)),
    ),
    "discretized_logistic_log_prob": (
        lambda *a: distributions.discretized_logistic_log_prob(*a, levels=17),
        (RNG.integers(0, 17, size=SHAPE).astype(np.uint8), floats(), floats()),
    ),
    "discretized_normal_log_prob": (
        lambda *a: distributions.discretized_normal_log_prob(*a, levels=17),
        (RNG.integers(0, 17, size=SHAPE).astype(np.uint8), floats(), floats()),
    ),
    "discretized_logistic_mixture_log_prob": (
        lambda *a: distributions.discretized_logistic_mixture_log_prob(*a, levels=17),
        (RNG.integers(0, 17, size=SHAPE).astype(np.uint8), *(floats(*SHAPE, 3) for _ in range(3))),
    ),
    "normal_kl": (distributions.normal_kl, tuple(floats() for _ in range(4))),
    "normal_kl_to_standard": (distributions.normal_kl_to_standard, (floats(), floats())),
}


@pytest.mark.parametrize("name", CASES)
def test_elementwise_jit_and_vmap_agree_with_the_plain_call(name):
    function, arguments = CASES[name]
    arguments = [jnp.asarray(a) for a in arguments]
    plain = function(*arguments)
    assert plain.shape == SHAPE
    assert plain.dtype == jnp.float32
    for mapped in (jax.jit(function), jax.vmap(function), jax.vmap(jax.vmap(function))):
        np.testing.assert_allclose(mapped(*arguments), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, (_, arguments) in CASES.items() if len(arguments) > 1])
def test_shapes_that_would_broadcast_are_refused(name):
    function, (first, *rest) = CASES[name]
    with pytest.raises(AssertionError):
        function(jnp.asarray(first[:, :1]), *map(jnp.asarray, rest))
    with pytest.raises(AssertionError):
        function(jnp.asarray(first[0]), *map(jnp.asarray, rest))


@pytest.mark.parametrize("name", CASES)
def test_parameters_that_are_not_floating_are_refused(name):
    function, (*rest, last) = CASES[name]
    with pytest.raises(AssertionError):
        function(*map(jnp.asarray, rest), jnp.asarray(last).astype(jnp.int32))


def test_raw_images_are_refused_as_bernoulli_data():
    with pytest.raises(AssertionError):
        distributions.bernoulli_log_prob(jnp.ones(SHAPE, jnp.uint8), jnp.asarray(floats()))


def test_a_class_must_be_an_integer():
    with pytest.raises(AssertionError):
        distributions.categorical_log_prob(jnp.ones(SHAPE), jnp.asarray(floats(*SHAPE, 7)))


def test_a_single_level_is_refused():
    for log_prob_fn in (distributions.discretized_logistic_log_prob, distributions.discretized_normal_log_prob):
        with pytest.raises(ValueError, match="levels"):
            log_prob_fn(jnp.zeros(2, jnp.int32), jnp.zeros(2), jnp.zeros(2), levels=1)


def test_the_event_is_summed_by_the_caller():
    x, logits = jnp.ones((3, 2, 2)), jnp.asarray(floats(3, 2, 2))
    summed = reductions.sum_except_batch(distributions.bernoulli_log_prob(x, logits))
    np.testing.assert_allclose(summed, jax.nn.log_sigmoid(logits).sum(axis=(1, 2)), rtol=1e-5)


def test_unknown_levels_and_classes_give_nan():
    x = jnp.asarray([-1, 5, 300])
    zeros = jnp.zeros(3)
    for log_prob_fn in (distributions.discretized_logistic_log_prob, distributions.discretized_normal_log_prob):
        assert np.isnan(log_prob_fn(x, zeros, zeros, levels=256)).tolist() == [True, False, True]
    classes = distributions.categorical_log_prob(x, jnp.zeros((3, 17)))
    assert np.isnan(classes).tolist() == [True, False, True]
