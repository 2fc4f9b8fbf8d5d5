"""Variational autoencoders: the terms of the evidence lower bound, and the importance-weighted bound.

Notation: x data, z latent, eps standard normal noise, K samples, B batch, Z latent width; q(z | x) the encoder,
p(x | z) the decoder, p(z) = N(0, I) the prior. Normals are diagonal and given by mean and log_var = log variance.

    ELBO:                    log p(x) >= E_q log p(x | z) - KL(q(z | x) || p(z))                          (1)
    reparameterisation:      z = mean + exp(log_var / 2) eps                                              (2)
    KL to the prior:         1/2 sum_j (var_j + mean_j^2 - log_var_j - 1)                                 (3)
    KL of two normals:       1/2 sum_j (log_var_p - log_var_q + (var_q + (mean_q - mean_p)^2) / var_p - 1)_j  (4)
    encoder:                 log q(z | x) = -1/2 sum_j (log 2 pi + log_var_j + (z_j - mean_j)^2 / var_j)  (5)
    prior:                   log p(z) = -1/2 sum_j (log 2 pi + z_j^2)                                     (6)
    importance weighting:    L_K(x) = log 1/K sum_k w_k,    w_k = p(x, z_k) / q(z_k | x)                  (7)
    beta-VAE:                nll + beta KL    (Higgins et al., ICLR 2017)                                 (8)

The decoder's term -log p(x | z) is one of `losses.likelihoods`; the three usual ones are importable from here too.

Every term is a sum over its event axes, pixels or latents, in nats. A mean over pixels next to a sum over latents is a
hidden beta-VAE with beta = D, the number of pixels. A weight belongs at the call site, where (8) reads

    loss = combine.weighted_sum({"nll": nll, "kl": kl}, kl=beta)

Unless beta = 1, the weighted loss is not a bound on the likelihood: report `elbo` or `importance_weighted_bound`.

For K samples, the decoder's term is mapped over its parameters:

    log_p_x = -jax.vmap(bernoulli_nll, in_axes=(None, 0))(x, logits)        # logits [K, B, ...] -> [K, B]
    log_w = log_importance_weights(log_p_x, prior_log_prob(z), encoder_log_prob(z, mean, log_var))
"""

import chex
import jax
import jax.numpy as jnp

from gm_jax.losses.likelihoods import bernoulli_nll, discretized_logistic_nll, normal_nll
from gm_jax.ops import distributions, reductions
from gm_jax.types import Array

__all__ = [
    "bernoulli_nll",
    "discretized_logistic_nll",
    "elbo",
    "encoder_log_prob",
    "importance_weighted_bound",
    "log_importance_weights",
    "normal_kl",
    "normal_kl_to_standard",
    "normal_nll",
    "prior_log_prob",
    "reparameterize",
    "resampled_importance_weighted_bound",
]


def reparameterize(mean: Array, log_var: Array, eps: Array) -> Array:
    """Computes a sample of q(z | x) as a differentiable function of its parameters, eq. (2).

    Args:
        mean: [B, Z] mean of q.
        log_var: [B, Z] log variance of q.
        eps: [B, Z] or [K, B, Z] standard normal noise, independent for every sample.
    Returns:
        z, the shape of `eps`.
    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114, eq. 4 and section 2.4.
    Example:
        >>> losses.reparameterize(jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2)), jnp.array([[0.5, -0.5]]))
        Array([[1.5, 1.5]], dtype=float32)
    """
    mean, log_var = _per_sample(eps, mean, log_var)
    return mean + jnp.exp(0.5 * log_var) * eps


def normal_kl_to_standard(mean: Array, log_var: Array) -> Array:
    """KL divergence from the encoder to the prior N(0, I), eq. (3).

    Args:
        mean: [B, Z] mean of q.
        log_var: [B, Z] log variance of q.
    Returns:
        [B] KL, nats, summed over Z; smaller is better.
    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114, appendix B.
    Example:
        >>> losses.normal_kl_to_standard(jnp.array([[1.0, -2.0]]), jnp.zeros((1, 2)))
        Array([2.5], dtype=float32)
    """
    chex.assert_rank([mean, log_var], 2)
    return reductions.sum_except_batch(distributions.normal_kl_to_standard(mean, log_var))


def normal_kl(mean_q: Array, log_var_q: Array, mean_p: Array, log_var_p: Array) -> Array:
    """KL divergence KL(q || p) from one diagonal normal to another, eq. (4).

    Args:
        mean_q: [B, Z] mean of q.
        log_var_q: [B, Z] log variance of q.
        mean_p: [B, Z] mean of p.
        log_var_p: [B, Z] log variance of p.
    Returns:
        [B] KL, nats, summed over Z; smaller is better.
    Example:
        >>> ones, zeros = jnp.ones((1, 2)), jnp.zeros((1, 2))
        >>> losses.normal_kl(ones, zeros, zeros, zeros)
        Array([1.], dtype=float32)
    """
    chex.assert_rank([mean_q, log_var_q, mean_p, log_var_p], 2)
    return reductions.sum_except_batch(distributions.normal_kl(mean_q, log_var_q, mean_p, log_var_p))


def elbo(nll: Array, kl: Array) -> Array:
    """Evidence lower bound from its two terms, eq. (1).

    Args:
        nll: [B] -log p(x | z) at a sample z of q (or its mean over samples), nats.
        kl: [B] KL(q(z | x) || p(z)), nats.
    Returns:
        [B] bound on log p(x), nats; larger is better.
    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114, eq. 3.
    Example:
        >>> losses.elbo(jnp.array([80.0]), jnp.array([20.0]))
        Array([-100.], dtype=float32)
    """
    chex.assert_rank([nll, kl], 1)
    chex.assert_equal_shape([nll, kl])
    chex.assert_type([nll, kl], float)
    return -nll - kl


def encoder_log_prob(z: Array, mean: Array, log_var: Array) -> Array:
    """Log-density log q(z | x) of one or K samples under the encoder, eq. (5).

    Args:
        z: [B, Z] or [K, B, Z] points.
        mean: [B, Z] mean.
        log_var: [B, Z] log variance.
    Returns:
        [B] or [K, B] log-density, nats, summed over Z; larger is better.
    Example:
        >>> losses.encoder_log_prob(jnp.ones((3, 1, 2)), jnp.ones((1, 2)), jnp.zeros((1, 2))).shape
        (3, 1)
    """
    mean, log_var = _per_sample(z, mean, log_var)
    return jnp.sum(distributions.normal_log_prob(z, mean, log_var), axis=-1)


def prior_log_prob(z: Array) -> Array:
    """Log-density log p(z) of one or K samples under the prior N(0, I), eq. (6).

    Args:
        z: [B, Z] or [K, B, Z] points.
    Returns:
        [B] or [K, B] log-density, nats, summed over Z; larger is better.
    Example:
        >>> losses.prior_log_prob(jnp.zeros((1, 2)))  # -log 2 pi
        Array([-1.8379], dtype=float32)
    """
    chex.assert_rank(z, {2, 3})
    return jnp.sum(distributions.standard_normal_log_prob(z), axis=-1)


def log_importance_weights(log_p_x_given_z: Array, log_p_z: Array, log_q_z_given_x: Array) -> Array:
    """Log importance weights of K samples of the encoder, log w_k of eq. (7).

    Args:
        log_p_x_given_z: [K, B] log p(x | z_k), nats: the negative of an `*_nll`.
        log_p_z: [K, B] log p(z_k), nats.
        log_q_z_given_x: [K, B] log q(z_k | x), nats.
    Returns:
        [K, B] log w, nats.
    Source: Burda, Grosse & Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519, section 3.
    Example:
        >>> losses.log_importance_weights(jnp.array([[-5.0]]), jnp.array([[-2.0]]), jnp.array([[-1.5]]))
        Array([[-5.5]], dtype=float32)
    """
    terms = [log_p_x_given_z, log_p_z, log_q_z_given_x]
    chex.assert_rank(terms, 2)
    chex.assert_equal_shape(terms)
    chex.assert_type(terms, float)
    return log_p_x_given_z + log_p_z - log_q_z_given_x


def importance_weighted_bound(log_w: Array) -> Array:
    """Importance-weighted lower bound on the log evidence.

        L_K(x) = log 1/K sum_k w_k,    w_k = p(x, z_k) / q(z_k | x)            (7)

    The bound becomes tight as K grows; K = 1 gives the single-sample ELBO. Its gradient in log w is the vector of
    normalised weights w~, so sum_k w~_k log w_k looks like an equivalent loss. With w~ held constant its gradient is
    right, but its value exceeds the bound by log K - H(w~) and may also exceed log p(x).

    Args:
        log_w: [K, B] log importance weights, nats.
    Returns:
        [B] bound, nats; larger is better.
    Source: Burda, Grosse & Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519, eq. 8.
    Example:
        >>> losses.importance_weighted_bound(jnp.log(jnp.array([[1.0], [3.0]])))  # log 2
        Array([0.6931], dtype=float32)
    """
    chex.assert_rank(log_w, 2)
    chex.assert_type(log_w, float)
    return reductions.log_mean_exp(log_w, axis=0)


def resampled_importance_weighted_bound(log_w: Array, log_w_resampled: Array) -> Array:
    """Bound (7) from K samples, with a gradient estimated from R of them that are drawn by their weights.

        grad L_K = sum_k w~_k grad log w_k = E_(j ~ w~)[grad log w_j],    w~_k = w_k / sum_i w_i

    The value is the bound of `log_w`, through which no gradient passes: the K samples then cost a forward pass only,
    about a third of their cost with a gradient. The estimate is unbiased; its variance grows as R falls.

    Args:
        log_w: [K, B] log importance weights, nats.
        log_w_resampled: [R, B] log weights of samples drawn from these K with probabilities w~, nats.
    Returns:
        [B] bound, nats; larger is better.
    Source: Burda, Grosse & Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519, section 3.
    Example:
        >>> log_w = jnp.log(jnp.array([[1.0], [3.0]]))
        >>> losses.resampled_importance_weighted_bound(log_w, log_w[1:])
        Array([0.6931], dtype=float32)
    """
    chex.assert_rank([log_w, log_w_resampled], 2)
    chex.assert_type([log_w, log_w_resampled], float)
    chex.assert_equal_shape_suffix([log_w, log_w_resampled], 1)
    surrogate = jnp.mean(log_w_resampled, axis=0)
    return jax.lax.stop_gradient(importance_weighted_bound(log_w) - surrogate) + surrogate


def _per_sample(samples: Array, mean: Array, log_var: Array) -> tuple[Array, Array]:
    """Repeats the parameters [B, Z] for each of the samples [B, Z] or [K, B, Z]."""
    chex.assert_rank(samples, {2, 3})
    chex.assert_rank(mean, {2, samples.ndim})
    chex.assert_equal_shape([mean, log_var])
    chex.assert_type([samples, mean, log_var], float)
    # Only the axis K may be added: plain broadcasting would also let a batch share one noise or one posterior.
    chex.assert_shape(samples, (..., *mean.shape))
    return jnp.broadcast_to(mean, samples.shape), jnp.broadcast_to(log_var, samples.shape)
