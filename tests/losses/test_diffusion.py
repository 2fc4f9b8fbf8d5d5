import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.losses import diffusion
from gm_jax.ops import diffusion_process, distributions, predictions

RNG = np.random.default_rng(0)
factors = diffusion_process.signal_and_noise
T = 50
VARIANCES = {"beta": diffusion_process.transition_variance, "beta~": diffusion_process.posterior_variance}
each_variance = pytest.mark.parametrize("variance_fn", VARIANCES.values(), ids=VARIANCES)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(4)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def schedule64():
    return diffusion_process.linear_schedule(T, dtype=np.float64)


# The losses, in closed form.


def test_the_noise_prediction_loss_is_the_squared_error_summed_over_the_event():
    eps, eps_hat = normal(5, 3, 3, 2), normal(5, 3, 3, 2)
    expected = np.sum((np.asarray(eps, np.float64) - eps_hat) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(diffusion.noise_prediction_loss(eps, eps_hat), expected, rtol=1e-5)
    np.testing.assert_allclose(diffusion.x0_prediction_loss(eps, eps_hat), expected, rtol=1e-5)


def test_the_three_losses_differ_only_by_their_weights(x64):
    t = jnp.array([1, 7, T])
    log_alpha_bar_t = schedule64().at(t)
    x_0, eps, eps_hat = normal(3, 4), normal(3, 4), normal(3, 4)
    x_t = predictions.diffuse(x_0, eps, *factors(log_alpha_bar_t))
    prediction = predictions.prediction_from_eps(x_t, eps_hat, *factors(log_alpha_bar_t))
    v_hat = predictions.v_target(*prediction, *factors(log_alpha_bar_t))
    expected = diffusion.noise_prediction_loss(eps, eps_hat)
    snr = jnp.exp(predictions.log_snr(*factors(log_alpha_bar_t)))
    np.testing.assert_allclose(snr * diffusion.x0_prediction_loss(x_0, prediction.x_0), expected, rtol=1e-10)
    v_loss = diffusion.v_prediction_loss(x_0, eps, v_hat, *factors(log_alpha_bar_t))
    np.testing.assert_allclose(jnp.exp(log_alpha_bar_t) * v_loss, expected, rtol=1e-10)


def test_the_weight_in_the_bound_is_that_of_the_paper(x64):
    # Ho et al., section 3.2: beta^2 / (2 sigma^2 alpha (1 - alpha_bar)).
    alpha_bar = np.exp(schedule64().log_alpha_bar)
    alpha, variance = alpha_bar[1:] / alpha_bar[:-1], RNG.uniform(0.1, 1.0, size=T)
    expected = (1 - alpha) ** 2 / (2 * variance * alpha * (1 - alpha_bar[1:]))
    log_alpha_bar = jnp.log(alpha_bar)
    weight = diffusion.bound_weight(log_alpha_bar[:-1], log_alpha_bar[1:], log_var=jnp.log(variance))
    np.testing.assert_allclose(weight, expected, rtol=1e-10)


def test_with_the_posterior_variance_the_weight_is_half_the_snr_growth(x64):
    log_alpha_bar_s, log_alpha_bar_t = schedule64().at(jnp.array([1, 3])), schedule64().at(jnp.array([2, 20]))
    log_var = jnp.log(diffusion_process.posterior_variance(log_alpha_bar_s, log_alpha_bar_t))
    growth = predictions.log_snr(*factors(log_alpha_bar_s)) - predictions.log_snr(*factors(log_alpha_bar_t))
    weight = diffusion.bound_weight(log_alpha_bar_s, log_alpha_bar_t, log_var=log_var)
    np.testing.assert_allclose(weight, 0.5 * jnp.expm1(growth), rtol=1e-10)


@each_variance
def test_the_weighted_loss_is_the_part_of_the_kl_that_predictions_change(variance_fn, x64):
    s_and_t = schedule64().at(jnp.array([1, 4, 20])), schedule64().at(jnp.array([2, 19, T]))
    x_0, eps, eps_hat = normal(3, 4), normal(3, 4), normal(3, 4)
    x_t = predictions.diffuse(x_0, eps, *factors(s_and_t[1]))
    x0_hat = predictions.prediction_from_eps(x_t, eps_hat, *factors(s_and_t[1])).x_0
    log_var = jnp.log(variance_fn(*s_and_t))
    kl = diffusion.denoising_kl(x_0, x0_hat, *s_and_t, log_var=log_var)
    least = diffusion.denoising_kl(x_0, x_0, *s_and_t, log_var=log_var)
    weight = diffusion.bound_weight(*s_and_t, log_var=log_var)
    np.testing.assert_allclose(kl - least, weight * diffusion.noise_prediction_loss(eps, eps_hat), rtol=1e-9)


# Gaussian data, where every optimum is known.


def test_the_optimal_prediction_of_gaussian_data_reaches_the_closed_form(x64):
    # x_0 ~ N(m, s^2), eps_hat = slope x_t + bias; the expectation over x_0 and eps by quadrature, exact for squares.
    m, s = 0.7, 0.4
    x_0, eps = (jnp.asarray(a.reshape(-1, 1)) for a in np.meshgrid(m + s * NODES, NODES, indexing="ij"))
    weights = jnp.asarray(np.outer(WEIGHTS, WEIGHTS).ravel())

    @jax.jit
    def expected_loss(slope_and_bias, log_alpha_bar_t):
        x_t = predictions.diffuse(x_0, eps, *factors(log_alpha_bar_t))
        eps_hat = slope_and_bias[0] * x_t + slope_and_bias[1]
        return weights @ diffusion.noise_prediction_loss(eps, eps_hat)

    derivatives = jax.jit(lambda *a: (jax.grad(expected_loss)(*a), jax.hessian(expected_loss)(*a)))
    for t in (1, 10, T):
        log_alpha_bar_t = schedule64().at(t)
        a_t, sigma_t = diffusion_process.signal_and_noise(log_alpha_bar_t)
        variance = a_t**2 * s**2 + sigma_t**2
        best = sigma_t / variance * jnp.array([1.0, -a_t * m])
        np.testing.assert_allclose(expected_loss(best, log_alpha_bar_t), a_t**2 * s**2 / variance, rtol=1e-12)
        gradient, hessian = derivatives(best, log_alpha_bar_t)
        np.testing.assert_allclose(gradient, np.zeros(2), atol=1e-12)
        assert np.all(np.linalg.eigvalsh(hessian) > 0)


def test_the_closed_form_loss_is_the_mean_over_samples():
    m, s, draws = 0.7, 0.4, 20_000
    x_0_key, eps_key = jax.random.split(jax.random.key(0))
    x_0 = m + s * jax.random.normal(x_0_key, (draws, 1))
    eps = jax.random.normal(eps_key, (draws, 1))
    log_alpha_bar_t = diffusion_process.linear_schedule(T).at(10)
    a_t, sigma_t = diffusion_process.signal_and_noise(log_alpha_bar_t)
    variance = a_t**2 * s**2 + sigma_t**2
    x_t = predictions.diffuse(x_0, eps, *factors(log_alpha_bar_t))
    loss = np.asarray(diffusion.noise_prediction_loss(eps, sigma_t * (x_t - a_t * m) / variance), np.float64)
    assert abs(loss.mean() - a_t**2 * s**2 / variance) < 3 * loss.std() / np.sqrt(draws)


def exact_bound(x_0, m, s, times, prior_kl):
    """The bound under the exact reverse process of data N(m, s^2), its denoising terms and its decoder's.

    The expectation over q is by quadrature, and exact: every term is a square of x_t.
    """

    def expected_term(term_fn, t, s_and_t):
        a_t, sigma_t = diffusion_process.signal_and_noise(s_and_t[1])
        variance = a_t**2 * s**2 + sigma_t**2
        # p(x_0 | x_t), and with it p(x_s | x_t): the posterior's mean is linear in x_0.
        unit, zero = jnp.ones((1, 1)), jnp.zeros((1, 1))
        slope = diffusion_process.posterior_mean(unit, zero, *s_and_t)[0, 0]
        x_0_variance = s**2 * sigma_t**2 / variance
        log_var = jnp.log(diffusion_process.posterior_variance(*s_and_t) + slope**2 * x_0_variance)
        total = 0.0
        for eps, weight in zip(NODES, WEIGHTS, strict=True):
            x_t = predictions.diffuse(x_0, jnp.full_like(x_0, eps), *factors(s_and_t[1]))
            x0_hat = m + a_t * s**2 / variance * (x_t - a_t * m)
            total += weight * term_fn(x0_hat, log_var, *s_and_t)
        return total

    def denoising(x0_hat, log_var, *s_and_t):
        return diffusion.denoising_kl(x_0, x0_hat, *s_and_t, log_var=log_var)

    def decoder(x0_hat, log_var, *s_and_t):
        return diffusion.decoder_normal_nll(x_0, x0_hat, log_var=log_var)

    at = schedule64().at
    terms = [expected_term(denoising, t, (at(s), at(t))) for t, s in itertools.pairwise(times)]
    decoder_nll = expected_term(decoder, times[-1], (at(0), at(times[-1])))
    kls = jnp.stack(terms)
    return diffusion.variational_bound(prior_kl, kls, decoder_nll, num_steps=len(times)), kls, decoder_nll


@pytest.mark.parametrize("times", [range(T, 0, -1), (T, 31, 30, 7, 2)], ids=["all", "skipped"])
def test_with_the_exact_reverse_process_the_bound_is_log_p(times, x64):
    m, s = 0.3, 0.6
    x_0 = jnp.array([[-4.0], [-0.2], [0.3], [1.1], [5.0]])
    a_T, sigma_T = diffusion_process.signal_and_noise(schedule64().at(T))
    log_var = jnp.full_like(x_0, jnp.log(a_T**2 * s**2 + sigma_T**2))
    # To the exact p(x_T) rather than N(0, 1), which `prior_kl` stands for.
    prior_kl = distributions.normal_kl(a_T * x_0, jnp.full_like(x_0, 2 * jnp.log(sigma_T)), a_T * m + 0 * x_0, log_var)
    bound, _, _ = exact_bound(x_0, m, s, times, prior_kl[:, 0])
    np.testing.assert_allclose(bound, stats.norm.logpdf(x_0[:, 0], m, s), rtol=0, atol=1e-10)


def test_the_transition_variance_is_exact_for_standard_normal_data(x64):
    x_0 = jnp.array([[-4.0], [0.0], [1.3]])
    bound, kls, decoder_nll = exact_bound(x_0, 0.0, 1.0, range(T, 0, -1), diffusion.prior_kl(x_0, schedule64().at(T)))
    np.testing.assert_allclose(bound, stats.norm.logpdf(x_0[:, 0]), rtol=0, atol=1e-10)
    at = schedule64().at

    def by_the_step(t):
        s_and_t = at(t - 1), at(t)
        log_var = jnp.log(diffusion_process.transition_variance(*s_and_t))
        total = 0.0
        for eps, weight in zip(NODES, WEIGHTS, strict=True):
            x_t = predictions.diffuse(x_0, jnp.full_like(x_0, eps), *factors(s_and_t[1]))
            x0_hat = jnp.exp(0.5 * s_and_t[1]) * x_t
            term = diffusion.denoising_kl(x_0, x0_hat, *s_and_t, log_var=log_var)
            total += weight * (diffusion.decoder_normal_nll(x_0, x0_hat, log_var=log_var) if t == 1 else term)
        return total

    np.testing.assert_allclose(by_the_step(20), kls[T - 20], rtol=1e-9)
    np.testing.assert_allclose(by_the_step(1), decoder_nll, rtol=1e-9)


def test_the_posterior_variance_is_exact_for_data_at_a_point(x64):
    s_and_t = schedule64().at(jnp.array([1, 7])), schedule64().at(jnp.array([2, 30]))
    x_0 = normal(2, 3)
    least = diffusion.denoising_kl(x_0, x_0, *s_and_t, log_var=jnp.log(VARIANCES["beta~"](*s_and_t)))
    np.testing.assert_array_equal(least, np.zeros(2))
    assert np.all(diffusion.denoising_kl(x_0, x_0, *s_and_t, log_var=jnp.log(VARIANCES["beta"](*s_and_t))) > 0)


def test_a_wrong_prediction_or_variance_lowers_the_bound(x64):
    x_0 = jnp.array([[-1.0], [2.0]])
    s_and_t = schedule64().at(9), schedule64().at(10)
    best = jnp.log(VARIANCES["beta~"](*s_and_t))
    kl = diffusion.denoising_kl(x_0, x_0 + 0.1, *s_and_t, log_var=best)
    assert np.all(kl > 1e-4)
    for factor in (0.5, 2.0):
        kl = diffusion.denoising_kl(x_0, x_0, *s_and_t, log_var=best + np.log(factor))
        np.testing.assert_allclose(kl, np.full(2, 0.5 * (1 / factor - 1 + np.log(factor))), rtol=1e-9)


# The terms.


@each_variance
def test_the_denoising_kl_does_not_depend_on_x_t(variance_fn, x64):
    s_and_t = schedule64().at(jnp.array([1, 4, 20])), schedule64().at(jnp.array([2, 19, T]))
    x_0, x0_hat, x_t = normal(3, 4), normal(3, 4), normal(3, 4)
    mean_q, mean_p = (diffusion_process.posterior_mean(x, x_t, *s_and_t) for x in (x_0, x0_hat))
    var_q, var_p = (np.asarray(f(*s_and_t))[:, None] for f in (diffusion_process.posterior_variance, variance_fn))
    expected = 0.5 * np.sum(np.log(var_p / var_q) + (var_q + (mean_q - mean_p) ** 2) / var_p - 1, axis=1)
    kl = diffusion.denoising_kl(x_0, x0_hat, *s_and_t, log_var=jnp.log(variance_fn(*s_and_t)))
    np.testing.assert_allclose(kl, expected, rtol=1e-9)


def test_the_prior_kl_keeps_its_digits_with_almost_no_signal():
    x_0 = normal(3, 4)
    for log_alpha_bar in (-0.5, -10.0, -20.0):
        alpha_bar = np.exp(np.float64(log_alpha_bar))
        square = alpha_bar * np.sum(np.asarray(x_0, np.float64) ** 2, axis=1)
        expected = 0.5 * (square - 4 * alpha_bar - 4 * np.log1p(-alpha_bar))
        np.testing.assert_allclose(diffusion.prior_kl(x_0, jnp.float32(log_alpha_bar)), expected, rtol=1e-5)
    np.testing.assert_array_equal(diffusion.prior_kl(x_0, jnp.float32(-np.inf)), np.zeros(3))


def test_the_decoder_of_points_is_a_scipy_density():
    x_0, x0_hat, log_var = normal(3, 4), normal(3, 4), normal(3)
    expected = -stats.norm.logpdf(x_0, x0_hat, np.exp(0.5 * np.asarray(log_var, np.float64))[:, None]).sum(axis=1)
    np.testing.assert_allclose(diffusion.decoder_normal_nll(x_0, x0_hat, log_var=log_var), expected, rtol=1e-5)


@pytest.mark.parametrize("log_var", [-9.0, -2.0, 3.0])
def test_the_decoder_of_levels_sums_to_one_over_all_images(log_var, x64):
    images = jnp.asarray(list(itertools.product(range(7), repeat=3)), jnp.uint8)
    x0_hat = jnp.broadcast_to(jnp.array([[-1.4, 0.05, 0.9]]), images.shape)
    nll = diffusion.discretized_normal_nll(images, x0_hat, log_var=jnp.asarray(log_var), levels=7)
    assert float(jnp.exp(-nll).sum()) == pytest.approx(1.0, abs=1e-12)


def test_the_decoder_of_256_levels_is_a_difference_of_scipy_cdfs():
    x = np.array([[0, 1, 128, 254, 255]])
    x0_hat, std = np.array([[-1.05, -0.9, 0.02, 0.98, 0.9]]), 0.04
    upper = np.where(x == 255, np.inf, (2 * x + 1) / 255 - 1)
    lower = np.where(x == 0, -np.inf, (2 * x - 1) / 255 - 1)
    expected = -np.log(stats.norm.cdf(upper, x0_hat, std) - stats.norm.cdf(lower, x0_hat, std)).sum(axis=1)
    log_var = jnp.float32(2 * np.log(std))
    nll = diffusion.discretized_normal_nll(
        jnp.asarray(x, jnp.uint8), jnp.asarray(x0_hat, jnp.float32), log_var=log_var, levels=256
    )
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


def test_the_bound_by_hand():
    bound = diffusion.variational_bound(
        jnp.array([1.0]), jnp.array([[2.0], [3.0], [4.0]]), jnp.array([10.0]), num_steps=4
    )
    np.testing.assert_array_equal(bound, [-1.0 - 9.0 - 10.0])


def test_one_drawn_time_estimates_the_whole_sum_without_bias():
    prior, kls, decoder = normal(3), normal(9, 3), normal(3)
    whole = diffusion.variational_bound(prior, kls, decoder, num_steps=10)
    drawn = [diffusion.variational_bound(prior, kls[k : k + 1], decoder, num_steps=10) for k in range(9)]
    np.testing.assert_allclose(np.mean(drawn, axis=0), whole, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(whole, -prior - kls.sum(axis=0) - decoder, rtol=1e-5, atol=1e-5)


# Extremes.


def test_the_gradient_is_finite_where_the_decoder_replaces_the_first_kl():
    # t = 1 and t = 2 in one batch: the KL of the first is infinite, its gradient is not.
    schedule = diffusion_process.linear_schedule(1000)
    s_and_t = schedule.at(jnp.array([0, 1])), schedule.at(jnp.array([1, 2]))
    x_0, log_var = normal(2, 3), jnp.log(diffusion_process.transition_variance(*s_and_t))

    def term(x0_hat):
        kl = diffusion.denoising_kl(x_0, x0_hat, *s_and_t, log_var=log_var)
        return jnp.where(s_and_t[0] == 0, diffusion.decoder_normal_nll(x_0, x0_hat, log_var=log_var), kl)

    value, vjp_fn = jax.vjp(term, normal(2, 3))
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(vjp_fn(jnp.ones(2))))
    assert diffusion.denoising_kl(x_0, x_0, *s_and_t, log_var=log_var)[0] == np.inf


@pytest.mark.parametrize("log_var", [-36.0, 0.0, 36.0])
@pytest.mark.parametrize("distance", [0.0, 100.0])
def test_every_term_is_finite_at_extreme_predictions_and_variances(log_var, distance):
    schedule = diffusion_process.cosine_schedule(1000)
    s_and_t = schedule.at(jnp.array([1, 998])), schedule.at(jnp.array([2, 1000]))
    x_0, level = jnp.full((2, 3), 0.1), jnp.full((2, 3), 140)

    def terms(x0_hat, log_var):
        return (
            diffusion.denoising_kl(x_0, x0_hat, *s_and_t, log_var=log_var)
            + diffusion.decoder_normal_nll(x_0, x0_hat, log_var=log_var)
            + diffusion.discretized_normal_nll(level, x0_hat, log_var=log_var, levels=256)
            + diffusion.v_prediction_loss(x_0, x_0, x0_hat, *factors(s_and_t[1]))
        )

    value, vjp_fn = jax.vjp(terms, x_0 + distance, jnp.full(2, log_var, jnp.float32))
    assert np.all(np.isfinite(value))
    assert all(np.all(np.isfinite(gradient)) for gradient in vjp_fn(jnp.ones(2)))


# Shapes.

B, EVENT = 4, (2, 3, 1)
X, Y, Z = (jnp.asarray(RNG.normal(size=(B, *EVENT)), jnp.float32) for _ in range(3))
LEVELS = jnp.asarray(RNG.integers(0, 17, size=(B, *EVENT)), jnp.uint8)
LOG_S = jnp.asarray(RNG.uniform(-0.5, -0.1, size=B), jnp.float32)
LOG_T = LOG_S - 1.0
LOG_VAR = jnp.asarray(RNG.normal(size=B), jnp.float32)
# Positional arguments, and log_var where the loss has one.
CASES = {
    "noise_prediction_loss": (diffusion.noise_prediction_loss, (X, Y)),
    "x0_prediction_loss": (diffusion.x0_prediction_loss, (X, Y)),
    "v_prediction_loss": (diffusion.v_prediction_loss, (X, Y, Z, *factors(LOG_T))),
    "prior_kl": (diffusion.prior_kl, (X, LOG_T)),
    "denoising_kl": (lambda *a: diffusion.denoising_kl(*a[:-1], log_var=a[-1]), (X, Y, LOG_S, LOG_T, LOG_VAR)),
    "decoder_normal_nll": (lambda *a: diffusion.decoder_normal_nll(*a[:-1], log_var=a[-1]), (X, Y, LOG_VAR)),
    "discretized_normal_nll": (
        lambda *a: diffusion.discretized_normal_nll(*a[:-1], log_var=a[-1], levels=17),
        (LEVELS, Y, LOG_VAR),
    ),
}
each_case = pytest.mark.parametrize("name", CASES)


@each_case
def test_jit_and_vmap_agree_with_the_plain_call(name):
    function, arguments = CASES[name]
    plain = function(*arguments)
    assert plain.shape == (B,)
    assert plain.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(function)(*arguments), plain, rtol=1e-5, atol=1e-5)
    with_batch_of_one = jax.vmap(lambda *one: function(*(a[None] for a in one))[0])
    np.testing.assert_allclose(with_batch_of_one(*arguments), plain, rtol=1e-5, atol=1e-5)


@each_case
def test_shapes_that_would_broadcast_are_refused(name):
    function, (x, *rest) = CASES[name]
    wrong = [x[0, 0, :, 0]] if name == "prior_kl" else [x[:1], x[..., 0], x[0, 0, :, 0]]
    for array in wrong:
        with pytest.raises(AssertionError):
            function(array, *rest)


@each_case
def test_integer_parameters_and_those_of_another_batch_are_refused(name):
    function, (*rest, last) = CASES[name]
    with pytest.raises(AssertionError):
        function(*rest, last.astype(jnp.int32))
    with pytest.raises(AssertionError):
        function(*rest, last[: B - 1])


def test_a_variance_per_element_or_scalar_equals_one_per_example():
    for name in ("denoising_kl", "decoder_normal_nll", "discretized_normal_nll"):
        function, (*rest, _) = CASES[name]
        expected = function(*rest, jnp.full(B, -0.7))
        np.testing.assert_allclose(function(*rest, jnp.float32(-0.7)), expected, rtol=1e-6)
        np.testing.assert_allclose(function(*rest, jnp.full((B, *EVENT), -0.7)), expected, rtol=1e-6)


def test_a_bound_without_its_terms_is_refused():
    one, kls = jnp.ones(3), jnp.ones((5, 3))
    with pytest.raises(ValueError, match="at least 1 denoising term and 2 steps"):
        diffusion.variational_bound(one, kls[:0], one, num_steps=5)
    with pytest.raises(ValueError, match="at least 1 denoising term and 2 steps"):
        diffusion.variational_bound(one, kls, one, num_steps=1)
    for wrong in ((one, one, one), (one, kls[:, :1], one), (kls, kls, one), (one, kls, one.astype(jnp.int32))):
        with pytest.raises(AssertionError):
            diffusion.variational_bound(*wrong, num_steps=6)
