"""Masked (absorbing) diffusion: the bound on log p(x), which is an autoregressive model averaged over all orders.

Notation: x of D dimensions; M a set of k masked dimensions; l_i = -log p(x_i | the visible ones) for i in M, from one
pass of a network that sees which dimensions are masked; t and alpha(t) as in `ops.masking`.

    continuous time:   -log p(x) <= int_0^1 -alpha'(t) / (1 - alpha(t)) E_M[ sum_(i in M) l_i ] dt         (1)
    any order:         -log p(x) <= sum_(k=1..D) 1/k E_(|M|=k)[ sum_(i in M) l_i ]                         (2)
                                  = E_order[ -sum_j log p(x_o(j) | x_o(1) ... x_o(j-1)) ]                  (3)

The three are equal for every alpha: with this weight and (independent) masks, k masked dimensions have the weight 1/k.
(3) is the mean over orders of exact chain rules. If the conditionals are those of one joint distribution, it is -log p
itself; a network's are not, and the gap is Jensen's, log of the mean over orders minus the mean of the logs.

Sources: Shi, Han, Wang, Doucet & Titsias, NeurIPS 2024, arXiv:2406.04329, eqs. 4-5; Sahoo et al., "Simple and Effective
Masked Diffusion Language Models", NeurIPS 2024, arXiv:2406.07524, eq. 10; Hoogeboom et al., "Autoregressive Diffusion
Models", ICLR 2022, arXiv:2110.02037, eqs. 4-6; Uria, Murray & Larochelle, "A Deep and Tractable Density Estimator",
ICML 2014, arXiv:1310.1757.
"""

import chex
import jax.numpy as jnp

from gm_jax.types import Array


def masked_diffusion_loss(nll: Array, is_masked: Array, weight: Array) -> Array:
    """Computes the integrand of the bound (1) at one time for each example.

    Args:
        nll: [B, D] l_i in nats; what stands at visible dimensions is ignored.
        is_masked: [B, D] bool.
        weight: [B] `ops.masking.loss_weight` at the times, which are uniform on (0, 1].
    Returns:
        [B] nats; its mean over times and masks is an upper bound on -log p(x).
    Source: Shi et al. (2024), eq. 5.
    Example:
        >>> nll = jnp.array([[0.5, 2.0, 1.0]])
        >>> losses.masked_diffusion_loss(nll, jnp.array([[True, False, True]]), jnp.array([1.5]))
        Array([2.25], dtype=float32)
    """
    chex.assert_rank([nll, is_masked, weight], [2, 2, 1])
    chex.assert_equal_shape([nll, is_masked])
    return weight * jnp.sum(jnp.where(is_masked, nll, 0.0), axis=1)


def any_order_loss(nll: Array, is_masked: Array) -> Array:
    """Computes D / k times the sum over the masked dimensions: one term of the bound (2), for k uniform on 1 ... D.

    Args:
        nll: [B, D] l_i in nats; what stands at visible dimensions is ignored.
        is_masked: [B, D] bool, with at least one True for each example; all sets of the same size are equally likely.
    Returns:
        [B] nats; its mean over sizes and sets is an upper bound on -log p(x).
    Source: Hoogeboom et al. (2022), eq. 6.
    Example:
        >>> nll = jnp.array([[0.5, 2.0, 1.0]])
        >>> losses.any_order_loss(nll, jnp.array([[True, False, True]]))
        Array([2.25], dtype=float32)
    """
    return masked_diffusion_loss(nll, is_masked, nll.shape[1] / jnp.sum(is_masked, axis=1))
