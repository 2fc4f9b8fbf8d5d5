"""Normalizing flows: the exact negative log-likelihood by the change of variables.

Notation: x data, z = f(x) the latent, f invertible and given by its forward direction, from data to latent; p_Z the
prior; df/dx the Jacobian, D x D.

    change of variables:  -log p(x) = -log p_Z(f(x)) - log |det df/dx|                                 (1)
    of a chain:           log |det df/dx| = sum_k log |det df_k/dh_(k-1)|,   f = f_K o ... o f_1         (2)
    multi-scale:          log p_Z(z) = sum_i log p(z_i | z_(i+1), ..., z_L),  z_i factored out at scale i   (3)
    standard normal:      log p_Z(z) = -1/2 sum_d (log 2 pi + z_d^2)                                     (4)
    standard logistic:    log p_Z(z) = -sum_d (log(1 + exp z_d) + log(1 + exp(-z_d)))                    (5)
    conditional normal:   log p(z_i | ...) = -1/2 sum_d (log 2 pi + log_var_d + (z_d - mean_d)^2 / var_d)   (6)

Each paper composes its flow from these functions (`ops.bijectors` computes each log-determinant, [B]):

    NICE:     flow.change_of_variables_nll(flow.standard_logistic_log_prob(z), log_det)
    RealNVP:  flow.change_of_variables_nll(flow.multi_scale_log_prob(map(flow.standard_normal_log_prob, zs)), log_det)
    Glow:     as RealNVP, with flow.normal_log_prob(z_i, mean_i, log_var_i) for the scales with a learned prior

`models.flow` writes all of them as NICE's line, of one flat latent that concatenates the parts. There a learned prior
is a layer that standardises its part; its log-determinant supplies the other terms of (6): `networks.glow`, eq. (2).

Units. The log-determinant in (1) must cover everything between the data and z. If it includes those of
`ops.dequantization` (division by the levels, logit), the result is in nats of the data set's own levels, a bound on
their discrete likelihood, and `ops.reductions.nats_to_bits_per_dim` converts it to bits per dimension. Without them the
result is the density of the input of f, which is a different number.

Two mistakes look right. `log_det` belongs to f and is added to the log-likelihood: if f stretches space (log_det > 0),
the density at x is larger than at z. And the prior covers all D dimensions of x: every z_i that was factored out has
its term in (3).
"""

from collections.abc import Iterable

import chex

from gm_jax.ops import checks, distributions, reductions
from gm_jax.types import Array


def change_of_variables_nll(prior_log_prob: Array, log_det: Array) -> Array:
    """Exact negative log-likelihood of a flow, eq. (1).

    Args:
        prior_log_prob: [B] log p_Z(f(x)), nats, summed over all D dimensions.
        log_det: [B] log |det df/dx| of the whole chain from data to latent, eq. (2), nats.
    Returns:
        [B] -log p(x), nats; smaller is better. It may be negative, because p is a density.
    Source: Dinh, Krueger & Bengio, "NICE", 2014, arXiv:1410.8516; Dinh, Sohl-Dickstein & Bengio, "Density Estimation
        Using Real NVP", ICLR 2017, arXiv:1605.08803.
    Example:
        >>> losses.change_of_variables_nll(jnp.array([-3.0]), jnp.array([0.5]))
        Array([2.5], dtype=float32)
    """
    chex.assert_rank([prior_log_prob, log_det], 1)
    chex.assert_equal_shape([prior_log_prob, log_det])
    chex.assert_type([prior_log_prob, log_det], float)
    return -prior_log_prob - log_det


def multi_scale_log_prob(log_probs: Iterable[Array]) -> Array:
    """Log-density of a latent whose parts were factored out at several scales, eq. (3).

    Args:
        log_probs: [B] each: log p(z_i | z_(i+1), ..., z_L) of every part, the last one included.
    Returns:
        [B] log p_Z(z), nats; larger is better.
    Source: Dinh, Sohl-Dickstein & Bengio, "Density Estimation Using Real NVP", ICLR 2017, arXiv:1605.08803,
        section 3.6; Kingma & Dhariwal, "Glow", NeurIPS 2018, arXiv:1807.03039.
    Example:
        >>> losses.multi_scale_log_prob([jnp.array([-3.0]), jnp.array([-1.0])])
        Array([-4.], dtype=float32)
    """
    log_probs = list(log_probs)
    if not log_probs:
        raise AssertionError("There are no parts: pass the log-density of at least one part.")
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
    Example:
        >>> losses.standard_normal_log_prob(jnp.zeros((1, 2)))  # -log 2 pi
        Array([-1.8379], dtype=float32)
    """
    checks.assert_batch_of_events(z)
    return reductions.sum_except_batch(distributions.standard_normal_log_prob(z))


def standard_logistic_log_prob(z: Array) -> Array:
    """Log-density of a latent under independent standard logistics, eq. (5).

    Sample the latent from the density it was trained under: `jax.random.logistic`, not a normal.

    Args:
        z: [B, ...] latents.
    Returns:
        [B] log-density, nats, summed over the event; larger is better.
    Source: Dinh, Krueger & Bengio, "NICE", 2014, arXiv:1410.8516.
    Example:
        >>> losses.standard_logistic_log_prob(jnp.zeros((1, 2)))  # -4 log 2
        Array([-2.7726], dtype=float32)
    """
    checks.assert_batch_of_events(z)
    return reductions.sum_except_batch(distributions.standard_logistic_log_prob(z))


def normal_log_prob(z: Array, mean: Array, log_var: Array) -> Array:
    """Log-density of one part of the latent under its learned prior, eq. (6).

    Args:
        z: [B, ...] the part.
        mean: [B, ...] its mean, computed from the parts that were factored out later.
        log_var: [B, ...] its log-variance, computed likewise.
    Returns:
        [B] log-density, nats, summed over the event; larger is better.
    Source: Kingma & Dhariwal, "Glow", NeurIPS 2018, arXiv:1807.03039.
    Example:
        >>> losses.normal_log_prob(jnp.array([[1.0, 3.0]]), jnp.array([[1.0, 1.0]]), jnp.zeros((1, 2)))
        Array([-3.8379], dtype=float32)
    """
    checks.assert_batch_of_events(z)
    return reductions.sum_except_batch(distributions.normal_log_prob(z, mean, log_var))
