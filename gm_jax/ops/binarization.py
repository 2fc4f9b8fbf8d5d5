"""Binarization of integer levels: three data sets with three likelihoods.

Notation: x in {0, ..., L-1} a level, L levels, u uniform noise in [0, 1), y in {0., 1.} the binary value.

    static:     y = x                      (L = 2: the data set ships binary values, drawn once)         (1)
    dynamic:    y = [u < x / (L - 1)]      (a Bernoulli draw, new for each u)                            (2)
    threshold:  y = [x > (L - 1) / 2]                                                                    (3)

Nats on one of them cannot be compared with nats on another. A dynamic set never repeats an image, so a model overfits
it less: on MNIST the same model scores about 2 nats better. Every result names its binarization.

Levels are integers 0 .. L-1 by contract. An image that is already scaled to [0, 1] is an error, not a black picture.
An image with more than L levels is an error too if its values are known; under `jit` they are not.
"""

import chex
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gm_jax.ops import checks
from gm_jax.ops.levels import to_unit
from gm_jax.types import Array


def static(x: Array) -> Array:
    """Converts data that are shipped as binary, eq. (1).

    Args:
        x: [...] integer levels, 0 or 1.
    Returns:
        [...] float32, 0. or 1.
    Raises:
        AssertionError: `x` is not integer, or its values are known and are not levels.
    Source: Larochelle & Murray, "The Neural Autoregressive Distribution Estimator", AISTATS 2011, whose binary MNIST
        is the usual fixed set.
    """
    _check_values(x, 2)
    return x.astype(jnp.float32)


def dynamic(x: Array, uniform: Array, *, levels: int) -> Array:
    """Draws from a Bernoulli whose probability is the grey level, eq. (2).

    Args:
        x: [...] integer levels 0..L-1.
        uniform: [...] noise in [0, 1), the shape of `x`; draw it again at each training step.
        levels: L, at least 2.
    Returns:
        [...] float32, 0. or 1.; level 0 is always 0 and level L-1 always 1.
    Raises:
        AssertionError: `x` is not integer, or its values are known and are not levels.
        ValueError: `levels` is smaller than 2.
    Source: Salakhutdinov & Murray, "On the Quantitative Analysis of Deep Belief Networks", ICML 2008.
    """
    chex.assert_equal_shape([x, uniform])
    chex.assert_type(uniform, float)
    _check_values(x, levels)
    return (uniform < to_unit(x, levels=levels, dtype=uniform.dtype)).astype(jnp.float32)


def threshold(x: Array, *, levels: int) -> Array:
    """Sets values above the middle of the scale to 1, eq. (3).

    Args:
        x: [...] integer levels 0..L-1.
        levels: L, at least 2; if it is odd, the middle level becomes 0.
    Returns:
        [...] float32, 0. or 1.
    Raises:
        AssertionError: `x` is not integer, or its values are known and are not levels.
        ValueError: `levels` is smaller than 2.
    """
    _check_values(x, levels)
    return (x > (levels - 1) // 2).astype(jnp.float32)


def _check_values(x: Array, levels: int) -> None:
    checks.check_levels(levels)
    chex.assert_type(x, int)
    if isinstance(x, Tracer) or not x.size:
        return
    known = np.asarray(x)  # in a jit, jnp's minimum of a constant is traced too
    lowest, highest = int(known.min()), int(known.max())
    if not 0 <= lowest <= highest < levels:
        raise AssertionError(f"Expected levels 0 .. {levels - 1}; got values {lowest} .. {highest}.")
