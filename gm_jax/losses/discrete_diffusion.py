"""Discrete diffusion (D3PM): the variational bound of states, step by step.

Notation: x_0 data of D dimensions, x_1 ... x_T noisy states, q the forward process and p the reverse one, both
independent over dimensions given x_t (`ops.transitions`); p~(x_0 | x_t) the network's prediction.

    -log p(x_0) <= KL(q(x_T | x_0) || p(x_T))                                                             (1)
                   + sum_(t=1..T) E_q KL(q(x_(t-1) | x_t, x_0) || p(x_(t-1) | x_t))                       (2)

At t = 1 the posterior is x_0 itself, so that this term of (2) is -log p(x_0 | x_1): the decoder needs no formula of its
own. With the absorbing process a term of (2) is that of masked diffusion, with (alpha_(t-1) - alpha_t) / (1 - alpha_t)
times -log p~ of each masked dimension, and T -> infinity gives `losses.masked_diffusion`.

    hybrid: sum over t of the terms (2), each plus lambda E_q[ -log p~(x_0 | x_t) ]                       (3)

Source: Austin, Johnson, Ho, Tarlow & van den Berg, "Structured Denoising Diffusion Models in Discrete State-Spaces",
NeurIPS 2021, arXiv:2107.03006, eqs. 1, 4 and 5.
"""

import chex
import jax.numpy as jnp

from gm_jax.losses.likelihoods import categorical_nll
from gm_jax.types import Array


def categorical_kl(log_q: Array, log_p: Array) -> Array:
    """Computes KL(q || p) of states that are independent over dimensions: the terms (1) and (2).

    Args:
        log_q: [B, ..., K] log-probabilities; an impossible state has a large negative one, not -infinity.
        log_p: [B, ..., K] log-probabilities.
    Returns:
        [B] nats, summed over the dimensions; at least 0 up to rounding.
    Source: Austin et al. (2021), eq. 1.
    Example:
        >>> log_q, log_p = jnp.log(jnp.array([[[0.5, 0.5]]])), jnp.log(jnp.array([[[0.25, 0.75]]]))
        >>> losses.categorical_kl(log_q, log_p)
        Array([0.1438], dtype=float32)
    """
    chex.assert_equal_shape([log_q, log_p])
    return jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=tuple(range(1, log_q.ndim)))


def discrete_variational_bound(prior_kl: Array, denoising_kl: Array, *, num_steps: int) -> Array:
    """Computes the bound -(1) - (2) on log p(x_0), from all times or from some.

    Args:
        prior_kl: [B] (1).
        denoising_kl: [S, B] terms of (2) at S of the T times, each time equally likely.
        num_steps: T.
    Returns:
        [B] nats; larger is better.
    Source: Austin et al. (2021), eq. 1.
    Example:
        >>> losses.discrete_variational_bound(jnp.array([0.5]), jnp.array([[1.0], [2.0]]), num_steps=10)
        Array([-15.5], dtype=float32)
    """
    chex.assert_rank([prior_kl, denoising_kl], [1, 2])
    chex.assert_equal_shape([prior_kl, denoising_kl[0]])
    return -prior_kl - num_steps * jnp.mean(denoising_kl, axis=0)


def hybrid_loss(denoising_kl: Array, x_0: Array, logits: Array, *, num_steps: int, weight: float) -> Array:
    """Computes one term of (3) for each example, times T.

    Args:
        denoising_kl: [B] a term of (2), at a time that is uniform on 1 ... T.
        x_0: [B, D] levels.
        logits: [B, D, L] of p~(x_0 | x_t).
        num_steps: T.
        weight: lambda, 0 for the bound alone.
    Returns:
        [B] nats; without lambda its mean over times is (2).
    Source: Austin et al. (2021), eq. 5; the weight relative to a single term, as in its code.
    Example:
        >>> losses.hybrid_loss(jnp.array([0.2]), jnp.array([[0]]), jnp.zeros((1, 1, 2)), num_steps=10, weight=1.0)
        Array([8.9315], dtype=float32)
    """
    chex.assert_rank(denoising_kl, 1)
    return num_steps * (denoising_kl + weight * categorical_nll(x_0, logits))
