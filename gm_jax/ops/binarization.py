"""Images of integer levels made binary: three data sets with three likelihoods.

Notation: x in {0, ..., L-1} a level, L levels, u uniform noise in [0, 1), y in {0., 1.} the binary value.

    static:     y = x                      (L = 2: somebody drew the binary set once and shipped it)     (1)
    dynamic:    y = [u < x / (L - 1)]      (a Bernoulli draw, new whenever u is)                         (2)
    threshold:  y = [x > (L - 1) / 2]                                                                    (3)

Nats on one of them say nothing of nats on another: a dynamic set never repeats an image, so a model overfits it less,
and on MNIST the same model lies about 2 nats better there. Every result names the one that it was measured on.
Levels are integers 0 .. L-1 by contract: an image already scaled to [0, 1] is an error here, not a black picture, and
so is one with more levels than was said, wherever its values are known: under `jit` they are not.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.types import Array


def static(x: Array) -> Array:
    """Binary data as shipped, eq. (1).

    Args:
        x: [...] integer levels, 0 or 1.
    Returns:
        [...] float32, 0. or 1.
    Raises:
        AssertionError: `x` is not integer (at trace time), or has other levels (where they are known).
    Source: Larochelle & Murray, "The Neural Autoregressive Distribution Estimator", AISTATS 2011, whose binary MNIST
        is the usual fixed set.
    """
    _check_levels(x, 2)
    return x.astype(jnp.float32)


def dynamic(x: Array, uniform: Array, *, levels: int) -> Array:
    """A Bernoulli draw with the grey level as its probability, eq. (2).

    Args:
        x: [...] integer levels 0..L-1.
        uniform: [...] noise in [0, 1), the shape of `x`; drawn anew at each training step.
        levels: L, at least 2.
    Returns:
        [...] float32, 0. or 1.; level 0 is always 0 and level L-1 always 1.
    Raises:
        AssertionError: `x` is not integer, `uniform` not floating, or the shapes differ (at trace time); or `x` has
            other levels (where they are known).
        ValueError: `levels` is smaller than 2.
    Source: Salakhutdinov & Murray, "On the Quantitative Analysis of Deep Belief Networks", ICML 2008.
    """
    chex.assert_equal_shape([x, uniform])
    chex.assert_type(uniform, float)
    _check_levels(x, levels)
    probability = x.astype(uniform.dtype) / (levels - 1)
    return (uniform < probability).astype(jnp.float32)


def threshold(x: Array, *, levels: int) -> Array:
    """1 above the middle of the scale, eq. (3).

    Args:
        x: [...] integer levels 0..L-1.
        levels: L, at least 2; where it is odd, the middle level itself gives 0.
    Returns:
        [...] float32, 0. or 1.
    Raises:
        AssertionError: `x` is not integer (at trace time), or has other levels (where they are known).
        ValueError: `levels` is smaller than 2.
    """
    _check_levels(x, levels)
    return (x > (levels - 1) // 2).astype(jnp.float32)


def _check_levels(x: Array, levels: int) -> None:
    if levels < 2:
        raise ValueError(f"levels must be at least 2: got {levels}.")
    chex.assert_type(x, int)
    if isinstance(x, jax.core.Tracer) or not x.size:
        return
    known = np.asarray(x)  # jnp's minimum of a constant is traced too, within a jit
    lowest, highest = int(known.min()), int(known.max())
    if not 0 <= lowest <= highest < levels:
        raise AssertionError(f"levels are 0 .. {levels - 1} here: got {lowest} .. {highest}.")
