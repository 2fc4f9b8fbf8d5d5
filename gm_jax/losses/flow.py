"""Normalizing flows: the exact negative log-likelihood by the change of variables.

Notation: x data, z = f(x) the latent, f invertible and given by its forward direction, from data to latent; p_Z the
prior; df/dx the Jacobian, D x D.

    change of variables:  -log p(x) = -log p_Z(f(x)) - log |det df/dx|                                 (1)
    of a chain:           log |det df/dx| = sum_k log |det df_k/dh_(k-1)|,   f = f_K o ... o f_1         (2)
    multi-scale:          log p_Z(z) = sum_i log p(z_i | z_(i+1), ..., z_L),  z_i factored out at scale i   (3)
    standard normal:      log p_Z(z) = -1/2 sum_d (log 2 pi + z_d^2)                                     (4)
    standard logistic:    log p_Z(z) = -sum_d (log(1 + exp z_d) + log(1 + exp(-z_d)))                    (5)
    conditional normal:   log p(z_i | ...) = -1/2 sum_d (log 2 pi + log_var_d + (z_d - mean_d)^2 / var_d)   (6)

A flow is put together as its paper writes it (`ops.bijectors` gives each log-determinant, [B]):

    NICE:     flow.change_of_variables_nll(flow.standard_logistic_log_prob(z), log_det)
    RealNVP:  flow.change_of_variables_nll(flow.multi_scale_log_prob(map(flow.standard_normal_log_prob, zs)), log_det)
    Glow:     as RealNVP, with flow.normal_log_prob(z_i, mean_i, log_var_i) for the scales with a learned prior

`models.flow` writes all of them as NICE's line, of one flat latent: the parts lie side by side in it, and a learned
prior is the layer that standardises its part, whose log-determinant is the rest of (6): `networks.glow`, eq. (2).

The unit. The log-determinant in (1) is that of everything between the data and z: with the ones of `ops.dequantization`
(division by the levels, logit) the result is nats of the data set's own levels, a bound on their discrete likelihood;
`ops.reductions.nats_to_bits_per_dim` makes bits per dimension of it. Without them it is the density of whatever f was
given, which is another number.

Two ways to get it wrong that look right. `log_det` is that of f, and is added to the log-likelihood: f stretching space
(log_det > 0) means more density at x than at z. And the D of the prior is that of x: every z_i that was factored out
has its term in (3).
"""

from collections.abc import Iterable

import chex

from gm_jax.ops import distributions, reductions
from gm_jax.types import Array


def change_of_variables_nll(prior_log_prob: Array, log_det: Array) -> Array:
    """Exact negative log-likelihood of a flow, eq. (1).

    Args:
        prior_log_prob: [B] log p_Z(f(x)), nats, summed over all D dimensions.
        log_det: [B] log |det df/dx| of the whole chain from data to latent, eq. (2), nats.
    Returns:
        [B] -log p(x), nats; smaller is better, and it may be negative: p is a density.
    Raises:
        AssertionError: an array is not rank-1 floating or shapes differ (at trace time).
    Source: Dinh, Krueger & Bengio, "NICE", 2014, arXiv:1410.8516; Dinh, Sohl-Dickstein & Bengio, "Density Estimation
        Using Real NVP", ICLR 2017, arXiv:1605.08803.
    """
    chex.assert_rank([prior_log_prob, log_det], 1)
    chex.assert_equal_shape([prior_log_prob, log_det])
    chex.assert_type([prior_log_prob, log_det], float)
    return -prior_log_prob - log_det


def multi_scale_log_prob(log_probs: Iterable[Array]) -> Array:
    """Log-density of a latent that was factored out in parts, eq. (3).

    Args:
        log_probs: [B] each: log p(z_i | z_(i+1), ..., z_L) of every part, the last one included.
    Returns:
        [B] log p_Z(z), nats; larger is better.
    Raises:
        AssertionError: no parts, or one is not rank-1 floating of the others' shape (at trace time).
    Source: Dinh, Sohl-Dickstein & Bengio, "Density Estimation Using Real NVP", ICLR 2017, arXiv:1605.08803,
        section 3.6; Kingma & Dhariwal, "Glow", NeurIPS 2018, arXiv:1807.03039.
    """
    log_probs = list(log_probs)
    if not log_probs:
        raise AssertionError("multi_scale_log_prob needs the log-density of at least one part.")
    chex.assert_rank(log_probs, 1)
    chex.assert_equal_shape(log_probs)
    chex.assert_type(log_probs, float)
    return sum(log_probs[1:], start=log_probs[0])


def standard_normal_log_prob(z: Array) -> Array:
    """Log-density of a latent under N(0, I), eq. (4).

    Args:
        z: [B, ...] latents.
    Returns:
        [B] log-density, nats, summed over the event; larger is better.
    Raises:
        AssertionError: no event axis or `z` is not floating (at trace time).
    """
    _assert_batch_of_events(z)
    return reductions.sum_except_batch(distributions.standard_normal_log_prob(z))


def standard_logistic_log_prob(z: Array) -> Array:
    """Log-density of a latent under independent standard logistics, eq. (5).

    The latent is sampled from the same density that it was trained under: `jax.random.logistic`, not a normal.

    Args:
        z: [B, ...] latents.
    Returns:
        [B] log-density, nats, summed over the event; larger is better.
    Raises:
        AssertionError: no event axis or `z` is not floating (at trace time).
    Source: Dinh, Krueger & Bengio, "NICE", 2014, arXiv:1410.8516.
    """
    _assert_batch_of_events(z)
    return reductions.sum_except_batch(distributions.standard_logistic_log_prob(z))


def normal_log_prob(z: Array, mean: Array, log_var: Array) -> Array:
    """Log-density of a part of the latent given the parts behind it, eq. (6).

    Args:
        z: [B, ...] the part.
        mean: [B, ...] its mean, computed from the parts behind it.
        log_var: [B, ...] its log-variance, likewise.
    Returns:
        [B] log-density, nats, summed over the event; larger is better.
    Raises:
        AssertionError: no event axis, shapes differ or an array is not floating (at trace time).
    Source: Kingma & Dhariwal, "Glow", NeurIPS 2018, arXiv:1807.03039.
    """
    _assert_batch_of_events(z)
    return reductions.sum_except_batch(distributions.normal_log_prob(z, mean, log_var))


def _assert_batch_of_events(z: Array) -> None:
    chex.assert_rank(z, set(range(2, 9)))
