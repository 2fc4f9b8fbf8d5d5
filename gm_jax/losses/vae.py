"""Variational autoencoders: the terms of the evidence lower bound, and the importance-weighted bound.

Notation: x data, z latent, eps standard normal noise, K samples, B batch, Z latent width; q(z | x) the encoder,
p(x | z) the decoder, p(z) = N(0, I) the prior. Normals are diagonal and given by mean and log_var = log variance.

    ELBO:                    log p(x) >= E_q log p(x | z) - KL(q(z | x) || p(z))                          (1)
    reparameterisation:      z = mean + exp(log_var / 2) eps                                              (2)
    KL to the prior:         1/2 sum_j (var_j + mean_j^2 - log_var_j - 1)                                 (3)
    KL of two normals:       1/2 sum_j (log_var_p - log_var_q + (var_q + (mean_q - mean_p)^2) / var_p - 1)_j  (4)
    Bernoulli decoder:       -log p(x | z) = sum_i log(1 + exp logits_i) - x_i logits_i                   (5)
    normal decoder:          -log p(x | z) = 1/2 sum_i (log 2 pi + log_var_i + (x_i - mean_i)^2 / var_i)  (6)
    discretised logistic:    -log p(x | z) = -sum_i log P(bin of level x_i)                               (7)
    importance weighting:    L_K(x) = log 1/K sum_k w_k,    w_k = p(x, z_k) / q(z_k | x)                  (8)
    beta-VAE:                nll + beta KL    (Higgins et al., ICLR 2017)                                 (9)

Every term is a sum over its event axes, pixels or latents, in nats. A mean over pixels beside a sum over latents is a
beta-VAE with beta = D that does not say so: a weight belongs at the call site, where (9) reads

    loss = combine.weighted_sum({"nll": nll, "kl": kl}, kl=beta)

and is not a likelihood unless beta = 1: report `elbo` or `importance_weighted_bound`, never the weighted loss.

The decoder terms take one x [B, ...] and one set of parameters [B, ...]; for K samples map them over the parameters:

    log_p_x = -jax.vmap(bernoulli_nll, in_axes=(None, 0))(x, logits)        # logits [K, B, ...] -> [K, B]
    log_w = log_importance_weights(log_p_x, standard_normal_log_prob(z), normal_log_prob(z, mean, log_var))
"""

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops import distributions, reductions
from gm_jax.types import Array


def reparameterize(mean: Array, log_var: Array, eps: Array) -> Array:
    """A sample of q(z | x) as a differentiable function of its parameters, eq. (2).

    Args:
        mean: [B, Z] mean of q.
        log_var: [B, Z] log variance of q.
        eps: [B, Z] or [K, B, Z] standard normal noise, independent for every sample.
    Returns:
        z, the shape of `eps`.
    Raises:
        AssertionError: shapes do not fit or an array is not floating (at trace time).
    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114, eq. 4 and section 2.4.
    """
    mean, log_var = _per_sample(eps, mean, log_var)
    return mean + jnp.exp(0.5 * log_var) * eps


def normal_kl_to_standard(mean: Array, log_var: Array) -> Array:
    """KL divergence of the encoder from the prior N(0, I), eq. (3).

    Args:
        mean: [B, Z] mean of q.
        log_var: [B, Z] log variance of q.
    Returns:
        [B] KL, nats, summed over Z; smaller is better.
    Raises:
        AssertionError: an array is not rank-2 floating or shapes differ (at trace time).
    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114, appendix B.
    """
    chex.assert_rank([mean, log_var], 2)
    return reductions.sum_except_batch(distributions.normal_kl_to_standard(mean, log_var))


def normal_kl(mean_q: Array, log_var_q: Array, mean_p: Array, log_var_p: Array) -> Array:
    """KL divergence of one diagonal normal from another, KL(q || p), eq. (4).

    Args:
        mean_q: [B, Z] mean of q.
        log_var_q: [B, Z] log variance of q.
        mean_p: [B, Z] mean of p.
        log_var_p: [B, Z] log variance of p.
    Returns:
        [B] KL, nats, summed over Z; smaller is better.
    Raises:
        AssertionError: an array is not rank-2 floating or shapes differ (at trace time).
    """
    chex.assert_rank([mean_q, log_var_q, mean_p, log_var_p], 2)
    return reductions.sum_except_batch(distributions.normal_kl(mean_q, log_var_q, mean_p, log_var_p))


def bernoulli_nll(x: Array, logits: Array) -> Array:
    """Reconstruction term of a Bernoulli decoder, eq. (5).

    Args:
        x: [B, ...] values 0. or 1., floating; grey levels are not data of this decoder.
        logits: [B, ...] log-odds of x = 1. For K samples `vmap` over them: a leading K would be taken for the batch.
    Returns:
        [B] negative log-likelihood, nats, summed over the event; smaller is better.
    Raises:
        AssertionError: no event axis, shapes differ or an array is not floating (at trace time).
    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114, appendix C.1.
    """
    _assert_batch_of_events(x)
    return -reductions.sum_except_batch(distributions.bernoulli_log_prob(x, logits))


def normal_nll(x: Array, mean: Array, log_var: Array) -> Array:
    """Reconstruction term of a normal decoder, eq. (6).

    The whole log-density. The squared error alone, as often used, drops the constant and with no 1/2 stands for
    variance 1/2, so that what it adds up to with a KL is no bound on log p(x).

    Args:
        x: [B, ...] data, floating.
        mean: [B, ...] mean of p(x | z).
        log_var: [B, ...] log variance; for a fixed one `jnp.full_like(mean, ...)`.
    Returns:
        [B] negative log-density, nats, summed over the event; smaller is better, and it may be negative.
    Raises:
        AssertionError: no event axis, shapes differ or an array is not floating (at trace time).
    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114, appendix C.2.
    """
    _assert_batch_of_events(x)
    return -reductions.sum_except_batch(distributions.normal_log_prob(x, mean, log_var))


def discretized_logistic_nll(x: Array, mean: Array, log_scale: Array, *, levels: int) -> Array:
    """Reconstruction term of a discretised logistic decoder, eq. (7): a true likelihood of integer levels.

    Args:
        x: [B, ...] integer levels 0..levels-1, as the data set ships them: an image scaled to [0, 1] is an error.
        mean: [B, ...] location, on the scale where the levels span [-1, 1].
        log_scale: [B, ...] log scale, on the same scale.
        levels: number of levels, at least 2.
    Returns:
        [B] negative log-likelihood, nats, summed over the event; smaller is better, at least 0.
    Raises:
        AssertionError: no event axis, shapes differ, `x` is not integer or a parameter not floating (at trace time).
        ValueError: `levels` is smaller than 2.
    Source: Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow", NeurIPS 2016,
        arXiv:1606.04934; end bins as in arXiv:1701.05517, eq. 2.
    """
    _assert_batch_of_events(x)
    log_prob = distributions.discretized_logistic_log_prob(x, mean, log_scale, levels=levels)
    return -reductions.sum_except_batch(log_prob)


def elbo(nll: Array, kl: Array) -> Array:
    """Evidence lower bound from its two terms, eq. (1).

    Args:
        nll: [B] -log p(x | z) at a sample z of q (or its mean over samples), nats.
        kl: [B] KL(q(z | x) || p(z)), nats.
    Returns:
        [B] bound on log p(x), nats; larger is better.
    Raises:
        AssertionError: an array is not rank-1 floating or shapes differ (at trace time).
    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114, eq. 3.
    """
    chex.assert_rank([nll, kl], 1)
    chex.assert_equal_shape([nll, kl])
    chex.assert_type([nll, kl], float)
    return -nll - kl


def normal_log_prob(z: Array, mean: Array, log_var: Array) -> Array:
    """Log-density log q(z | x) of samples under a diagonal normal, the negative of eq. (6) on latents.

    Args:
        z: [B, Z] or [K, B, Z] points.
        mean: [B, Z] mean.
        log_var: [B, Z] log variance.
    Returns:
        [B] or [K, B] log-density, nats, summed over Z; larger is better.
    Raises:
        AssertionError: shapes do not fit or an array is not floating (at trace time).
    """
    mean, log_var = _per_sample(z, mean, log_var)
    return jnp.sum(distributions.normal_log_prob(z, mean, log_var), axis=-1)


def standard_normal_log_prob(z: Array) -> Array:
    """Log-density log p(z) of samples under the prior N(0, I).

    Args:
        z: [B, Z] or [K, B, Z] points.
    Returns:
        [B] or [K, B] log-density, nats, summed over Z; larger is better.
    Raises:
        AssertionError: `z` is not a floating array of rank 2 or 3 (at trace time).
    """
    chex.assert_rank(z, {2, 3})
    return jnp.sum(distributions.standard_normal_log_prob(z), axis=-1)


def log_importance_weights(log_p_x_given_z: Array, log_p_z: Array, log_q_z_given_x: Array) -> Array:
    """Log importance weights of K samples of the encoder, log w_k of eq. (8).

    Args:
        log_p_x_given_z: [K, B] log p(x | z_k), nats: the negative of an `*_nll`.
        log_p_z: [K, B] log p(z_k), nats.
        log_q_z_given_x: [K, B] log q(z_k | x), nats.
    Returns:
        [K, B] log w, nats.
    Raises:
        AssertionError: an array is not rank-2 floating or shapes differ (at trace time).
    Source: Burda, Grosse & Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519, section 3.
    """
    terms = [log_p_x_given_z, log_p_z, log_q_z_given_x]
    chex.assert_rank(terms, 2)
    chex.assert_equal_shape(terms)
    chex.assert_type(terms, float)
    return log_p_x_given_z + log_p_z - log_q_z_given_x


def importance_weighted_bound(log_w: Array) -> Array:
    """Importance-weighted lower bound on the log evidence.

        L_K(x) = log 1/K sum_k w_k,    w_k = p(x, z_k) / q(z_k | x)            (8)

    Tight as K grows; K = 1 is the single-sample ELBO. Its gradient in log w is the normalised weights w~, which makes
    sum_k w~_k log w_k a tempting loss: the gradient would be right with w~ held constant, but the value exceeds the
    bound by log K - H(w~) and may exceed log p(x) too.

    Args:
        log_w: [K, B] log importance weights, nats.
    Returns:
        [B] bound, nats; larger is better.
    Raises:
        AssertionError: log_w is not a rank-2 floating array (at trace time).
    Source: Burda, Grosse & Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519, eq. 8.
    """
    chex.assert_rank(log_w, 2)
    chex.assert_type(log_w, float)
    return reductions.log_mean_exp(log_w, axis=0)


def resampled_importance_weighted_bound(log_w: Array, log_w_resampled: Array) -> Array:
    """The bound (8) of K samples, with a gradient estimated from R of them drawn by their weights.

        grad L_K = sum_k w~_k grad log w_k = E_(j ~ w~)[grad log w_j],    w~_k = w_k / sum_i w_i

    The value is the bound of `log_w`, whose own gradient is not taken: K samples then cost a forward pass only, about a
    third of what they cost with their gradient. The estimate is unbiased, and the noisier the fewer are drawn.

    Args:
        log_w: [K, B] log importance weights, nats.
        log_w_resampled: [R, B] log weights of samples drawn from these K with probabilities w~, nats.
    Returns:
        [B] bound, nats; larger is better.
    Raises:
        AssertionError: an argument is not a rank-2 floating array or the batches differ (at trace time).
    Source: Burda, Grosse & Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016, arXiv:1509.00519, section 3.
    """
    chex.assert_rank([log_w, log_w_resampled], 2)
    chex.assert_type([log_w, log_w_resampled], float)
    chex.assert_equal_shape_suffix([log_w, log_w_resampled], 1)
    surrogate = jnp.mean(log_w_resampled, axis=0)
    return jax.lax.stop_gradient(importance_weighted_bound(log_w) - surrogate) + surrogate


def _per_sample(samples: Array, mean: Array, log_var: Array) -> tuple[Array, Array]:
    """The parameters [B, Z] once for each of the samples [B, Z] or [K, B, Z]."""
    chex.assert_rank(samples, {2, 3})
    chex.assert_rank(mean, {2, samples.ndim})
    chex.assert_equal_shape([mean, log_var])
    chex.assert_type([samples, mean, log_var], float)
    # Only the axis K may be added: plain broadcasting would also let a batch share one noise or one posterior.
    chex.assert_shape(samples, (..., *mean.shape))
    return jnp.broadcast_to(mean, samples.shape), jnp.broadcast_to(log_var, samples.shape)


def _assert_batch_of_events(x: Array) -> None:
    if x.ndim < 2:
        raise AssertionError(f"x must be [B, ...] with at least one event axis: got shape {x.shape}.")
