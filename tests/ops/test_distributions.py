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
