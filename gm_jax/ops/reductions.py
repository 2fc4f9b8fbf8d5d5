"""Reductions that keep their meaning: what is summed, what is averaged, and in which unit.

Notation: B examples, D dimensions of one example; log is natural, so that sums of log-probabilities are nats.

    sum_except_batch:        s_b = sum_{i, j, ...} x_{b i j ...}                                     (1)
    log_mean_exp:            log 1/K sum_k exp(x_k)                                                  (2)
    masked_mean:             sum_b m_b x_b / sum_b m_b                                               (3)
    nats_to_bits_per_dim:    nats / (D log 2)                                                        (4)
"""

import math

import chex
import jax
import jax.numpy as jnp

from gm_jax.types import Array


def sum_except_batch(x: Array) -> Array:
    """Sum over every axis but the first, eq. (1).

    Args:
        x: [B, ...] of any rank from 1.
    Returns:
        [B] sums, in the unit of `x`.
    Raises:
        AssertionError: `x` is a scalar (at trace time).
    """
    if jnp.ndim(x) == 0:
        raise AssertionError("sum_except_batch needs a batch axis: got a scalar.")
    return jnp.sum(x, axis=tuple(range(1, jnp.ndim(x))))


def log_mean_exp(x: Array, axis: int) -> Array:
    """Log of the mean of exponentials along an axis, eq. (2), without overflow.

    It averages probabilities that are kept as logarithms. The mean of the logarithms themselves is never larger
    (Jensen); mixing up the two, or feeding it negative log-likelihoods, gives a number that bounds nothing.

    Args:
        x: logarithms, nats, floating.
        axis: the axis that is averaged away.
    Returns:
        `x` without `axis`, nats; larger where any entry is larger.
    Raises:
        AssertionError: `x` is not floating (at trace time).
    """
    chex.assert_type(x, float)
    return jax.nn.logsumexp(x, axis=axis) - math.log(x.shape[axis])


def masked_mean(x: Array, mask: Array) -> Array:
    """Mean over the entries that a mask keeps, eq. (3).

    Args:
        x: [...] floating; what stands where the mask is False is ignored, NaN and infinity included.
        mask: [...] bool, the shape of `x`; True keeps.
    Returns:
        Scalar, in the unit of `x`; NaN if nothing is kept, for the mean of nothing is not 0.
    Raises:
        AssertionError: shapes differ, `x` is not floating or `mask` not bool (at trace time).
    """
    chex.assert_equal_shape([x, mask])
    chex.assert_type([x, mask], [float, bool])
    # `where`, not a product: padding may hold NaN, and NaN * 0 is NaN.
    return jnp.sum(jnp.where(mask, x, jnp.zeros_like(x))) / jnp.sum(mask, dtype=x.dtype)


def nats_to_bits_per_dim(nats: Array, num_dims: int) -> Array:
    """A negative log-likelihood in bits per dimension, eq. (4).

    This changes the unit and nothing else. The "+ 8" that papers add for 256 levels belongs to a density over
    rescaled data: here the change of variables that rescales counts its log-determinant itself, so a density
    arrives in the measure of the levels and adding it again would count it twice.

    Args:
        nats: [...] negative log-likelihood of whole examples, nats.
        num_dims: D, the numbers in one example (height * width * channels), at least 1.
    Returns:
        [...] bits per dimension; smaller is better.
    Raises:
        ValueError: `num_dims` is smaller than 1.
    """
    if num_dims < 1:
        raise ValueError(f"num_dims must be at least 1: got {num_dims}.")
    return nats / (num_dims * math.log(2.0))
