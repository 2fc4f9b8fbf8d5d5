"""Score matching: learning grad log p without its normalising constant, from data alone or from noisy data.

Notation as in `ops.gaussian_path`: x_0 data, x_t = a_t x_0 + s_t eps, snr_t = a_t^2 / s_t^2. S(x) is the model of the
score grad log p(x), J its Jacobian, v a probe with E[v v'] = I; |.| is the Euclidean norm over the event axes.

    Fisher:         1/2 E |S(x) - grad log p(x)|^2                                                       (1)
    implicit:       1/2 |S|^2 + tr J                           = (1) in expectation, up to a constant    (2)
    sliced:         v' J v + 1/2 (v' S)^2                      = (2) in expectation over v               (3)
    reduced:        v' J v + 1/2 |S|^2                         = (2) too, with a smaller variance        (4)
    denoising:      1/2 |S(x_t) + eps / s_t|^2                 = (1) at x_t, up to a constant            (5)
    EDM:            (sigma^2 + c^2) / (sigma c)^2 |x_0 - x0_hat|^2,    sigma = s_t / a_t                 (6)
    bound:          -log p(x_0) <= L_T + int 1/2 |d log snr / dt| |eps - eps_hat|^2 dt + L_0             (7)

c is the standard deviation of the data. No weight is hidden in (5): it stands at the call site. Each of the papers'
weights makes (5) another loss of this package,

    s_t^2 (NCSN):                  1/2 |eps - eps_hat|^2,    eps_hat = -s_t S                            (8)
    g_t^2 (likelihood):            1/2 |d log snr / dt| |eps - eps_hat|^2, the integrand of (7)          (9)

because g_t^2 = s_t^2 |d log snr / dt| on every path. So the integral (7) is the mean of half the noise-prediction loss
over times that are uniform in log snr, times the range of log snr: that is the importance sampling of (9).

Source: Hyvarinen, "Estimation of Non-Normalized Statistical Models by Score Matching", JMLR 6, 2005, for (2); Song et
al., "Sliced Score Matching", UAI 2019, arXiv:1905.07088, for (3) and (4); Vincent, "A Connection Between Score Matching
and Denoising Autoencoders", Neural Computation 23, 2011, for (5); Song et al., "Maximum Likelihood Training of
Score-Based Diffusion Models", NeurIPS 2021, arXiv:2101.09258, for (9).
"""

from collections.abc import Callable

import chex
import jax.numpy as jnp

from gm_jax.ops import checks, divergence
from gm_jax.ops.predictions import per_example
from gm_jax.ops.reductions import sum_except_batch
from gm_jax.types import Array

ScoreFn = Callable[[Array], Array]  # x [B, ...] -> S(x) [B, ...]


def implicit_score_matching_loss(score_fn: ScoreFn, x: Array) -> Array:
    """Computes the implicit score matching loss, eq. (2), with the exact trace.

    Args:
        score_fn: S.
        x: [B, ...] data of at most 64 dimensions.
    Returns:
        [B] loss; smaller is better; its mean at the true score is -1/2 E|S|^2.
    Raises:
        ValueError: the data have more than 64 dimensions: use `sliced_score_matching_loss`.
    Source: Hyvarinen, JMLR 6, 2005, theorem 1.
    Example:
        >>> losses.implicit_score_matching_loss(lambda x: -x, jnp.array([[1.0, 2.0]]))
        Array([0.5], dtype=float32)
    """
    checks.assert_batch_of_events(x)
    score, trace = divergence.exact_divergence(score_fn, x)
    return 0.5 * sum_except_batch(jnp.square(score)) + trace


def sliced_score_matching_loss(score_fn: ScoreFn, x: Array, probe: Array) -> Array:
    """Computes the sliced score matching loss, eq. (3), with one derivative in place of D.

    Args:
        score_fn: S.
        x: [B, ...] data.
        probe: v [B, ...], with mean 0 and covariance I: normal numbers or random signs.
    Returns:
        [B] loss; smaller is better in expectation over the probes.
    Source: Song et al., UAI 2019, arXiv:1905.07088, eq. 8.
    Example:
        >>> losses.sliced_score_matching_loss(lambda x: -x, jnp.array([[1.0, 2.0]]), jnp.array([[1.0, -1.0]]))
        Array([-1.5], dtype=float32)
    """
    checks.assert_batch_of_events(x)
    score, quadratic = divergence.probed_divergence(score_fn, x, probe)
    return quadratic + 0.5 * jnp.square(sum_except_batch(probe * score))


def variance_reduced_sliced_score_matching_loss(score_fn: ScoreFn, x: Array, probe: Array) -> Array:
    """Computes the sliced loss with the norm of the score itself, eq. (4), which has a smaller variance.

    Args:
        score_fn: S.
        x: [B, ...] data.
        probe: v [B, ...], with mean 0 and covariance I.
    Returns:
        [B] loss; smaller is better in expectation over the probes.
    Source: Song et al., UAI 2019, arXiv:1905.07088, section 3.1 (SSM-VR).
    Example:
        >>> score_fn, x, probe = lambda x: -x, jnp.array([[1.0, 2.0]]), jnp.array([[1.0, -1.0]])
        >>> losses.variance_reduced_sliced_score_matching_loss(score_fn, x, probe)
        Array([0.5], dtype=float32)
    """
    checks.assert_batch_of_events(x)
    score, quadratic = divergence.probed_divergence(score_fn, x, probe)
    return quadratic + 0.5 * sum_except_batch(jnp.square(score))


def denoising_score_matching_loss(score: Array, eps: Array, s_t: Array) -> Array:
    """Computes the denoising score matching loss, eq. (5), unweighted; (8) and (9) are the usual weights.

    Args:
        score: [B, ...] S at x_t.
        eps: [B, ...] the noise in x_t.
        s_t: [B], or a scalar for all; above 0.
    Returns:
        [B] loss; smaller is better. Its least mean, that of the true score, is above 0.
    Source: Vincent, Neural Computation 23, 2011, eq. 11; Song & Ermon, "Generative Modeling by Estimating Gradients of
        the Data Distribution", NeurIPS 2019, arXiv:1907.05600, eqs. 5-6.
    Example:
        >>> s_t = jnp.array(0.5)
        >>> s_t**2 * losses.denoising_score_matching_loss(jnp.array([[0.0, 2.0]]), jnp.array([[1.0, 1.0]]), s_t)
        Array([2.5], dtype=float32)
    """
    checks.assert_batch_of_events(score)
    chex.assert_equal_shape([score, eps])
    chex.assert_type([score, eps, s_t], float)
    return 0.5 * sum_except_batch(jnp.square(score + eps / per_example(s_t, eps)))


def preconditioned_denoising_loss(
    x_0: Array, x0_hat: Array, a_t: Array, s_t: Array, *, sigma_data: float | Array
) -> Array:
    """Computes the loss of EDM, eq. (6): one at every time for a network that outputs 0.

    It is the squared error of the network's own output if x0_hat is `predictions.prediction_from_preconditioned`.

    Args:
        x_0: [B, ...] data.
        x0_hat: [B, ...] the model's prediction from x_t.
        a_t: [B], or a scalar for all; 1 on EDM's own path.
        s_t: [B], or a scalar for all; above 0.
        sigma_data: c, the standard deviation of the data.
    Returns:
        [B] loss, summed over the event; smaller is better.
    Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022,
        arXiv:2206.00364, eq. 2 and table 1; a path with a signal a_t is EDM's at sigma = s_t / a_t.
    Example:
        >>> x_0, ones = jnp.array([[0.5, 0.5]]), jnp.ones(1)
        >>> losses.preconditioned_denoising_loss(x_0, jnp.zeros((1, 2)), ones, ones, sigma_data=0.5)
        Array([2.5], dtype=float32)
    """
    checks.assert_batch_of_events(x_0)
    chex.assert_equal_shape([x_0, x0_hat])
    chex.assert_type([x_0, x0_hat, a_t, s_t], float)
    weight = 1.0 / jnp.square(sigma_data) + jnp.square(a_t / s_t)
    return weight * sum_except_batch(jnp.square(x_0 - x0_hat))


def continuous_prior_kl(x_0: Array, a_t: Array, s_t: Array) -> Array:
    """Computes the term L_T of the bound (7): KL(q(x_t | x_0) || N(0, s_t^2)) at the last time.

    Args:
        x_0: [B, ...] data, on the scale on which they are diffused.
        a_t: scalar, the signal at the last time.
        s_t: scalar, the noise at the last time, which is the standard deviation of the prior.
    Returns:
        [B] KL, nats; smaller is better.
    Source: Kingma et al., "Variational Diffusion Models", NeurIPS 2021, arXiv:2107.00630, eq. 11.
    Example:
        >>> losses.continuous_prior_kl(jnp.array([[1.0, -2.0]]), jnp.array(1.0), jnp.array(10.0))
        Array([0.025], dtype=float32)
    """
    checks.assert_batch_of_events(x_0)
    chex.assert_type([x_0, a_t, s_t], float)
    return 0.5 * jnp.square(a_t / s_t) * sum_except_batch(jnp.square(x_0))


def continuous_bound(
    prior_kl: Array, noise_losses: Array, decoder_nll: Array, *, log_snr_range: float | Array
) -> Array:
    """Adds up the bound on log p(x_0) in continuous time from its terms, eq. (7).

        log p(x_0) >= -L_T - (log snr_first - log snr_last) / 2 mean_k |eps - eps_hat_k|^2 - L_0

    at K times that are uniform in log snr. It is the limit of `variational_bound` for many steps.

    Args:
        prior_kl: [B] L_T, nats: `continuous_prior_kl`.
        noise_losses: [K, B] |eps - eps_hat|^2 at K times: `noise_prediction_loss`.
        decoder_nll: [B] L_0 at the first time, nats.
        log_snr_range: log snr at the first time minus log snr at the last time.
    Returns:
        [B] bound, nats; larger is better.
    Raises:
        ValueError: there are no times.
    Source: Kingma et al., NeurIPS 2021, arXiv:2107.00630, eqs. 11 and 17.
    Example:
        >>> losses.continuous_bound(jnp.array([0.5]), jnp.array([[1.0], [3.0]]), jnp.array([2.0]), log_snr_range=10.0)
        Array([-12.5], dtype=float32)
    """
    chex.assert_rank([prior_kl, noise_losses, decoder_nll], [1, 2, 1])
    chex.assert_type([prior_kl, noise_losses, decoder_nll], float)
    chex.assert_equal_shape_suffix([prior_kl, noise_losses, decoder_nll], 1)
    if noise_losses.shape[0] == 0:
        raise ValueError("the bound needs the noise-prediction loss at 1 time at least: got none.")
    return -prior_kl - 0.5 * log_snr_range * jnp.mean(noise_losses, axis=0) - decoder_nll
