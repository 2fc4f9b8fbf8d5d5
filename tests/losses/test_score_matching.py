"""Score matching on Gaussian data, where every expectation is a closed form, and the bound against exact densities."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from gm_jax.losses import diffusion, score_matching
from gm_jax.ops import diffusion_process, gaussian_path, predictions
from gm_jax.ops.reductions import sum_except_batch

RNG = np.random.default_rng(0)
PATHS = {
    "vp": gaussian_path.variance_preserving(),
    "sub_vp": gaussian_path.sub_variance_preserving(),
    "ve": gaussian_path.variance_exploding(),
    "edm": gaussian_path.edm(),
    "linear": gaussian_path.linear()._replace(range=(1e-3, 1 - 1e-3)),
}
each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
# Gauss-Hermite quadrature in two dimensions: exact for polynomials of degree 9.
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
POINTS = np.array(list(itertools.product(NODES, NODES)))
MASS = np.array([a * b for a, b in itertools.product(NODE_WEIGHTS, NODE_WEIGHTS)]) / NODE_WEIGHTS.sum() ** 2
SIGNS = np.array(list(itertools.product([-1.0, 1.0], repeat=2)))


def linear_score(matrix):
    return lambda x: x @ matrix.T


# Data N(0, I) and a linear score x -> A x: every loss is a polynomial of A, summed exactly.

MATRIX = jnp.array([[-0.7, 0.4], [0.1, -1.3]])


def fisher(matrix):
    """1/2 E |A x + x|^2, the true score being -x."""
    return 0.5 * jnp.sum(jnp.square(matrix + jnp.eye(2)))


def implicit(matrix):
    return jnp.sum(MASS * score_matching.implicit_score_matching_loss(linear_score(matrix), jnp.asarray(POINTS)))


def sliced(loss):
    def value(matrix):
        per_probe = [
            loss(linear_score(matrix), jnp.asarray(POINTS), jnp.broadcast_to(jnp.asarray(v), POINTS.shape))
            for v in SIGNS
        ]
        return jnp.sum(MASS * sum(per_probe)) / len(SIGNS)

    return value


def denoising(matrix, *, s=0.6):
    """Data N(0, 0.8^2), so that x_t = x_0 + 0.6 eps is N(0, I) again."""
    data, noise = (grid.ravel() for grid in np.indices((len(POINTS), len(POINTS))))
    x_0, eps = POINTS[data], jnp.asarray(POINTS[noise])
    losses = score_matching.denoising_score_matching_loss((0.8 * x_0 + s * eps) @ matrix.T, eps, jnp.array(s))
    return jnp.sum(MASS[data] * MASS[noise] * losses)


OBJECTIVES = {
    "implicit": implicit,
    "sliced": sliced(score_matching.sliced_score_matching_loss),
    "reduced": sliced(score_matching.variance_reduced_sliced_score_matching_loss),
    "denoising": denoising,
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_score_matching_loss_has_the_gradient_of_the_fisher_divergence(name, x64):
    matrix = jnp.asarray(np.asarray(MATRIX), jnp.float64)
    np.testing.assert_allclose(jax.grad(OBJECTIVES[name])(matrix), jax.grad(fisher)(matrix), rtol=1e-9, atol=1e-9)


def test_the_implicit_loss_is_the_fisher_divergence_less_half_the_dimension(x64):
    # E |grad log p|^2 / 2 = D / 2 for N(0, I).
    np.testing.assert_allclose(implicit(MATRIX.astype(float)), fisher(MATRIX.astype(float)) - 1.0, rtol=1e-9)


def test_the_reduced_sliced_loss_has_the_smaller_variance_over_signs(x64):
    # With S = -x: 1/2 (v' x)^2 - 2, whose variance is 2, and 1/2 |x|^2 - 2, whose variance is 1.
    x, v = (jnp.asarray(np.repeat(POINTS, 4, axis=0)), jnp.asarray(np.tile(SIGNS, (len(POINTS), 1))))
    mass = np.repeat(MASS, 4) / 4
    for loss, expected in (
        (score_matching.sliced_score_matching_loss, 2.0),
        (score_matching.variance_reduced_sliced_score_matching_loss, 1.0),
    ):
        values = np.asarray(loss(linear_score(-jnp.eye(2)), x, v))
        np.testing.assert_allclose(np.sum(mass * values**2) - np.sum(mass * values) ** 2, expected, rtol=1e-9)


def test_the_least_denoising_loss_is_the_trace_of_the_posterior_covariance(x64):
    # Weighted by 2 s^2 it is |eps - eps_hat|^2; its least mean is D c^2 a^2 / (a^2 c^2 + s^2).
    a, s, c = 0.8, 0.5, 0.9
    x_0, eps = c * RNG.normal(size=(200_000, 1)), RNG.normal(size=(200_000, 1))
    score = -(a * x_0 + s * eps) / (a**2 * c**2 + s**2)
    loss = 2 * s**2 * score_matching.denoising_score_matching_loss(*map(jnp.asarray, (score, eps, s)))
    error = np.std(loss) / np.sqrt(len(loss))
    assert abs(float(jnp.mean(loss)) - a**2 * c**2 / (a**2 * c**2 + s**2)) < 4 * error


@each_path
def test_the_weights_of_the_papers_make_the_noise_loss_and_the_integrand_of_the_bound(path, x64):
    first, last = path.range
    t = jnp.asarray(first + (last - first) * RNG.uniform(0.05, 0.95, size=5))
    eps, eps_hat = (jnp.asarray(RNG.normal(size=(5, 3))) for _ in range(2))
    loss = score_matching.denoising_score_matching_loss(predictions.score(eps_hat, path.noise(t)), eps, path.noise(t))
    noise_loss = diffusion.noise_prediction_loss(eps, eps_hat)
    np.testing.assert_allclose(path.noise(t) ** 2 * loss, 0.5 * noise_loss, rtol=1e-10)
    log_snr = lambda t: predictions.log_snr(path.signal(t), path.noise(t))  # noqa: E731
    step = 1e-6 * t
    slope = (log_snr(t + step) - log_snr(t - step)) / (2 * step)
    np.testing.assert_allclose(path.squared_diffusion(t) * loss, -0.5 * slope * noise_loss, rtol=1e-5)


# EDM.


@each_path
def test_the_preconditioned_loss_is_the_squared_error_of_the_networks_output(path, x64):
    first, last = path.range
    t = jnp.asarray(first + (last - first) * RNG.uniform(0.05, 0.95, size=4))
    a_t, s_t = path.signal(t), path.noise(t)
    x_0, eps, output = (jnp.asarray(RNG.normal(size=(4, 3))) for _ in range(3))
    x_t = predictions.diffuse(x_0, eps, a_t, s_t)
    pair = predictions.prediction_from_preconditioned(x_t, output, a_t, s_t, sigma_data=0.5)
    loss = score_matching.preconditioned_denoising_loss(x_0, pair.x_0, a_t, s_t, sigma_data=0.5)
    target = predictions.preconditioned_target(x_0, eps, a_t, s_t, sigma_data=0.5)
    np.testing.assert_allclose(loss, sum_except_batch(jnp.square(target - output)), rtol=1e-7)


def test_the_weight_of_edm_is_the_papers():
    sigma = jnp.array([0.002, 0.5, 80.0])
    loss = score_matching.preconditioned_denoising_loss(
        jnp.ones((3, 1)), jnp.zeros((3, 1)), jnp.ones(3), sigma, sigma_data=0.5
    )
    np.testing.assert_allclose(loss, (sigma**2 + 0.25) / (sigma * 0.5) ** 2, rtol=1e-6)


# The bound in continuous time, of data N(0, c^2) with the exact prediction of the noise.

C = 0.7


def expected_terms(path, x_0):
    """(E noise loss as a function of log snr, decoder_nll, log snr at both ends) for one datum, by hand."""
    first, last = (jnp.asarray(end) for end in path.range)
    ends = [float(predictions.log_snr(path.signal(t), path.noise(t))) for t in (first, last)]

    def noise_loss(log_snr):
        # eps_hat = s x_t / (a^2 c^2 + s^2), with a / s = r: eps - eps_hat = (r^2 c^2 eps - r x_0) / (1 + r^2 c^2).
        r2 = np.exp(log_snr)
        return (r2**2 * C**4 + r2 * x_0**2) / (1 + r2 * C**2) ** 2

    return noise_loss, ends


@each_path
def test_the_bound_of_the_exact_score_is_the_log_density(path, x64):
    x_0 = 0.4
    noise_loss, (start, end) = expected_terms(path, x_0)
    a_T, s_T = path.signal(jnp.asarray(path.range[1])), path.noise(jnp.asarray(path.range[1]))
    prior_kl = score_matching.continuous_prior_kl(jnp.full((1, 1), x_0), a_T, s_T)
    # At K midpoints in log snr; E over eps is in the closed form.
    count = 20_000
    at = start + (end - start) * (np.arange(count) + 0.5) / count
    # E -log N(x_0; x0_hat, v) with the exact posterior at the first time, v = c^2 / (1 + r^2 c^2).
    r2 = np.exp(start)
    v = C**2 / (1 + r2 * C**2)
    squared_error = (x_0**2 + r2 * C**4) / (1 + r2 * C**2) ** 2
    decoder_nll = 0.5 * np.log(2 * np.pi * v) + squared_error / (2 * v)
    bound = score_matching.continuous_bound(
        prior_kl, jnp.asarray(noise_loss(at))[:, None], jnp.full(1, decoder_nll), log_snr_range=start - end
    )
    # The gap is that of the prior: KL(q(x_T | x_0) || N(0, s^2)) in place of the same with the true marginal.
    a_T, s_T = float(a_T), float(s_T)
    marginal = a_T**2 * C**2 + s_T**2
    true_kl = 0.5 * (s_T**2 / marginal + a_T**2 * x_0**2 / marginal - 1 - np.log(s_T**2 / marginal))
    gap = float(prior_kl[0]) - true_kl
    np.testing.assert_allclose(bound, stats.norm.logpdf(x_0, scale=C) - gap, rtol=1e-6)


def test_the_discrete_bound_tends_to_the_continuous_one_as_one_over_the_steps(x64):
    # Denoising terms alone, between the same two ends, in expectation over eps by closed form.
    path, x_0 = gaussian_path.variance_preserving(), 0.4
    noise_loss, _ = expected_terms(path, x_0)
    first, last = 0.05, 1.0
    ends = [float(predictions.log_snr(path.signal(jnp.asarray(t)), path.noise(jnp.asarray(t)))) for t in (first, last)]
    limit = 0.5 * integrate.quad(noise_loss, ends[1], ends[0], epsabs=1e-12)[0]
    gaps = []
    for num_steps in (30, 300, 3000):
        t = jnp.linspace(first, last, num_steps + 1)
        log_alpha_bar = 2 * jnp.log(path.signal(t))
        s, t_ = log_alpha_bar[:-1], log_alpha_bar[1:]
        weight = diffusion.bound_weight(s, t_, log_var=jnp.log(diffusion_process.posterior_variance(s, t_)))
        log_snr = np.asarray(predictions.log_snr(path.signal(t[1:]), path.noise(t[1:])))
        gaps.append(float(jnp.sum(weight * noise_loss(log_snr))) - limit)
    assert gaps[0] > gaps[1] > gaps[2] > 0
    np.testing.assert_allclose(np.diff(np.log10(gaps)), [-1.0, -1.0], atol=0.1)


# Extremes and shapes.


def test_a_bound_without_times_is_refused():
    with pytest.raises(ValueError, match="1 time at least"):
        score_matching.continuous_bound(jnp.ones(2), jnp.ones((0, 2)), jnp.ones(2), log_snr_range=1.0)


def test_implicit_score_matching_of_an_image_is_refused():
    with pytest.raises(ValueError, match="784 dimensions"):
        score_matching.implicit_score_matching_loss(lambda x: -x, jnp.ones((1, 28, 28)))


X = jnp.ones((3, 2))
CALLS = {
    "implicit": (lambda x: score_matching.implicit_score_matching_loss(jnp.negative, x), (X,)),
    "sliced": (lambda x, v: score_matching.sliced_score_matching_loss(jnp.negative, x, v), (X, X)),
    "reduced": (
        lambda x, v: score_matching.variance_reduced_sliced_score_matching_loss(jnp.negative, x, v),
        (X, X),
    ),
    "denoising": (score_matching.denoising_score_matching_loss, (X, X, jnp.ones(3))),
    "edm": (
        lambda *arrays: score_matching.preconditioned_denoising_loss(*arrays, sigma_data=0.5),
        (X, X, jnp.ones(3), jnp.ones(3)),
    ),
    "prior": (score_matching.continuous_prior_kl, (X, jnp.float32(0.1), jnp.float32(1.0))),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_loss_is_one_number_an_example_and_needs_an_event(name):
    call, arrays = CALLS[name]
    assert jax.jit(call)(*arrays).shape == (3,)
    with pytest.raises(AssertionError):
        call(*(array[:, 0] if array.ndim == 2 else array for array in arrays))
