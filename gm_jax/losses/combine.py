"""Weighted sums of named loss terms, and a weight that is learned.

Notation: L_i named terms of one shape ([B], or scalars) and unit, lambda_i their weights.

    L = sum_i lambda_i L_i,    lambda_i = 1 unless it is named                                             (1)

The terms stay visible at the call site, and the same dictionary can be logged as metrics:

    terms = {"nll": vae.bernoulli_nll(x, logits), "kl": vae.normal_kl_to_standard(mean, log_var)}
    loss = combine.weighted_sum(terms, kl=beta)

A squared error e whose expected size depends on a condition, such as the time, and is learned as exp(u):

    L = e exp(-u) + u,    smallest in u at u = log E e                                                     (2)

with E the mean given the condition. L is unbounded below where E e is 0.
"""

from collections.abc import Mapping

import chex
import jax.numpy as jnp

from gm_jax.types import Array


def weighted_sum(terms: Mapping[str, Array], **weights: float | Array) -> Array:
    """Computes the weighted sum of named loss terms, eq. (1).

    Args:
        terms: name -> [B] loss, to be minimised; any shape and unit, but one shape for all.
        **weights: name of a term -> its weight, a number or a scalar array (an annealed weight); the others weigh 1.
    Returns:
        The sum, in the shape of a term; smaller is better.
    Raises:
        ValueError: there are no terms, or a weight names an unknown term.
    Example:
        >>> losses.weighted_sum({"nll": jnp.array([80.0]), "kl": jnp.array([20.0])}, kl=4.0)
        Array([160.], dtype=float32)
    """
    if not terms:
        raise ValueError("There are no terms: pass at least one term.")
    unknown = sorted(weights.keys() - terms.keys())
    if unknown:
        raise ValueError(f"Unknown terms {unknown} among the weights; the terms are {sorted(terms)}.")
    chex.assert_equal_shape(list(terms.values()))
    chex.assert_type(list(terms.values()), float)
    chex.assert_rank(list(weights.values()), 0)
    # A fixed order: `jit` sorts a dictionary that passes through it, and a sum of floats depends on the order.
    weighted = [terms[name] * weights[name] if name in weights else terms[name] for name in sorted(terms)]
    return sum(weighted[1:], start=weighted[0])


def uncertainty_weighted_loss(error: Array, log_error: Array) -> Array:
    """Computes an error divided by its expected size, which is learned, eq. (2).

    Args:
        error: [B] squared errors.
        log_error: [B] u, a function of the condition of each error, learned by this loss; above -88 in float32.
    Returns:
        [B] loss; smaller is better, and it may be negative. The gradient in the error is exp(-u), and in u it is 0 on
        average if exp(u) is the expected error.
    Source: twice the loss of Kendall, Gal & Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
        Geometry and Semantics", CVPR 2018, arXiv:1705.07115, with u = log sigma^2, which depends on the condition as in
        Kendall & Gal, NeurIPS 2017, arXiv:1703.04977; of the times of diffusion models: Karras et al., "Analyzing and
        Improving the Training Dynamics of Diffusion Models" (EDM2), CVPR 2024, arXiv:2312.02696.
    Example:
        >>> losses.uncertainty_weighted_loss(jnp.array([0.5]), jnp.log(jnp.array([0.25])))
        Array([0.6137], dtype=float32)
    """
    chex.assert_rank([error, log_error], 1)
    chex.assert_equal_shape([error, log_error])
    chex.assert_type([error, log_error], float)
    return error * jnp.exp(-log_error) + log_error
