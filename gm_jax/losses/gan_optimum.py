"""The adversarial game at its optimum: the best discriminator, and the value that it leaves to the generator.

Notation as in `losses.gan`; p_d and p_g are the densities of data and of generated examples, a and b the targets of the
discriminator for the two.

    optimal D:         D* = (a p_d + b p_g) / (p_d + p_g);    l* = log p_d - log p_g  at a = 1, b = 0       (1)
    Jensen-Shannon:    JSD = 1/2 KL(p_d || m) + 1/2 KL(p_g || m),    m = (p_d + p_g) / 2                    (2)
    value at D*:       max_D V(G, D) = -log 4 + 2 JSD                                                       (3)
"""

import math

import chex
import jax
import jax.numpy as jnp

from gm_jax.types import Array


def optimal_discriminator(
    log_p_data: Array, log_p_g: Array, *, real_target: float = 1.0, fake_target: float = 0.0
) -> Array:
    """Probability that minimises the discriminator's loss at each point, eq. (1).

    Args:
        log_p_data: [...] log p_d, nats, at points or atoms; -inf if there is no data.
        log_p_g: [...] log p_g, nats, at the same points.
        real_target: a, in [0, 1].
        fake_target: b, in [0, 1].
    Returns:
        [...] D*, between b and a; NaN if neither density is positive.
    Source: Goodfellow et al., 2014, arXiv:1406.2661; with smoothing Salimans et al., 2016, arXiv:1606.03498.
    Example:
        >>> losses.optimal_discriminator(jnp.log(jnp.array([0.6])), jnp.log(jnp.array([0.2])))
        Array([0.75], dtype=float32)
    """
    chex.assert_equal_shape([log_p_data, log_p_g])
    chex.assert_type([log_p_data, log_p_g], float)
    logits = log_p_data - log_p_g
    return real_target * jax.nn.sigmoid(logits) + fake_target * jax.nn.sigmoid(-logits)


def jensen_shannon_divergence(log_p: Array, log_q: Array) -> Array:
    """Jensen-Shannon divergence of two distributions over K atoms, eq. (2).

    Args:
        log_p: [..., K] log-probabilities, nats, normalised over the last axis; -inf for an atom of probability 0.
        log_q: [..., K] log-probabilities of the other distribution.
    Returns:
        [...] divergence, nats, between 0 and log 2.
    Example:
        >>> losses.jensen_shannon_divergence(jnp.log(jnp.array([1.0, 0.0])), jnp.log(jnp.array([0.0, 1.0])))
        Array(0.6931, dtype=float32)
    """
    chex.assert_equal_shape([log_p, log_q])
    chex.assert_type([log_p, log_q], float)
    chex.assert_axis_dimension_gt(log_p, -1, 0)
    return 0.5 * (_kl_to_mixture(log_p, log_q) + _kl_to_mixture(log_q, log_p))


def optimal_value(log_p_data: Array, log_p_g: Array) -> Array:
    """Value of the game at the optimal discriminator, eq. (3): the generator's remaining loss.

    Args:
        log_p_data: [..., K] log-probabilities of the data, nats, normalised over the last axis.
        log_p_g: [..., K] log-probabilities of the generator.
    Returns:
        [...] value, nats, between -log 4, if the two agree, and 0; smaller is better for the generator.
    Source: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, arXiv:1406.2661.
    Example:
        >>> log_p = jnp.log(jnp.array([0.25, 0.75]))
        >>> losses.optimal_value(log_p, log_p)
        Array(-1.3863, dtype=float32)
    """
    return -math.log(4.0) + 2.0 * jensen_shannon_divergence(log_p_data, log_p_g)


def _kl_to_mixture(log_p: Array, log_q: Array) -> Array:
    """KL(p || (p + q) / 2) = sum p (log 2 - log(1 + q / p)); an atom with p = 0 adds 0, with gradient 0."""
    absent = jnp.isneginf(log_p)
    p, log_ratio = jnp.where(absent, 0.0, jnp.exp(log_p)), jnp.where(absent, 0.0, log_q - log_p)
    return jnp.sum(p * (math.log(2.0) - jax.nn.softplus(log_ratio)), axis=-1)
