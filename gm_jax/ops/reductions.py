"""Reductions with a fixed meaning: which axes are summed or averaged, and in which unit.

Notation: B examples, D dimensions of one example; log is natural, so that sums of log-probabilities are nats.

    sum_except_batch:        s_b = sum_{i, j, ...} x_{b i j ...}                                     (1)
    log_mean_exp:            log 1/K sum_k exp(x_k)                                                  (2)
    nats_to_bits_per_dim:    nats / (D log 2)                                                        (3)
"""

import math
from typing import TypeVar

import chex
import jax
import jax.numpy as jnp

from gm_jax.types import Array

_ArrayOrFloat = TypeVar("_ArrayOrFloat", Array, float)


def sum_except_batch(x: Array) -> Array:
    """Sums over every axis but the first, eq. (1).

    Args:
        x: [B, ...] of any rank from 1.
    Returns:
        [B] sums, in the unit of `x`.
    """
    if jnp.ndim(x) == 0:
        raise AssertionError("Expected an array with a batch axis; got a scalar.")
    return jnp.sum(x, axis=tuple(range(1, jnp.ndim(x))))


def log_mean_exp(x: Array, axis: int) -> Array:
    """Computes the log of the mean of exponentials along an axis, eq. (2), without overflow.

    This averages probabilities that are stored as logarithms. The mean of the logarithms is never larger (Jensen).
    Confusing the two, or passing negative log-likelihoods, gives a number that bounds nothing.

    Args:
        x: logarithms, nats, floating.
        axis: the axis to average over.
    Returns:
        `x` without `axis`, nats; it increases with every entry.
    """
    chex.assert_type(x, float)
    return jax.nn.logsumexp(x, axis=axis) - math.log(x.shape[axis])


def nats_to_bits_per_dim(nats: _ArrayOrFloat, num_dims: int) -> _ArrayOrFloat:
    """Converts a negative log-likelihood to bits per dimension, eq. (3).

    This changes only the unit. The "+ 8" that papers add for 256 levels belongs to a density over rescaled data. Here
    the change of variables that rescales already counts its log-determinant, so adding 8 would count it twice.

    Args:
        nats: [...] negative log-likelihood of whole examples.
        num_dims: D, the number of values in one example (height * width * channels), at least 1.
    Returns:
        [...] bits per dimension; smaller is better.
    Raises:
        ValueError: `num_dims` is smaller than 1.
    """
    if num_dims < 1:
        raise ValueError(f"num_dims must be at least 1; got {num_dims}.")
    return nats / (num_dims * math.log(2.0))
