"""Integer levels made continuous, and the interval made the real line, each with its log-determinant.

Notation: k in {0, ..., L-1} a level, L levels, u uniform noise in [0, 1), y in [0, 1), h real; D dimensions. The
direction is that of `ops.bijectors`: from the data towards the latent.

    uniform dequantisation:  y = (k + u) / L                       log det = -D log L                  (1)
    quantisation:            k = floor(L y), within 0 ... L-1                                          (2)
    logit:                   h = log s - log(1 - s),  s = a + (1 - 2 a) y
                             log det = sum_i log(1 - 2 a) - log s_i - log(1 - s_i)                     (3)

What the number means. Let q be a density over y or h, with all log-determinants counted: p(v) = q(y) L^-D is then the
density of v = k + u, in the measure of the levels themselves, and

    E_u log p(k + u) <= log P(k),    P(k) = integral of p over [k, k + 1)^D                            (4)

by Jensen. So -log q(y) - log det, its noise drawn anew at each evaluation, is an upper bound on the nats of L-level
data, comparable with any model of the same L levels (an autoregressive model's are exact), and `nats_to_bits_per_dim`
makes bits per dimension of it: exactly log2 L for q = 1, the uniform density. A density of y that leaves out (1), or of
h that leaves out (3), is a number in another measure, D log L nats off or worse.
"""

import math

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops.reductions import sum_except_batch
from gm_jax.types import Array


def uniform_dequantize(x: Array, uniform: Array, *, levels: int) -> tuple[Array, Array]:
    """Levels with uniform noise added, on the unit interval, eq. (1).

    Without noise a density over the levels is unbounded: it may shrink to spikes at them.

    Args:
        x: [B, ...] integer levels 0..L-1; any other level gives NaN.
        uniform: [B, ...] noise in [0, 1), the shape of `x`; drawn anew at each step and evaluation.
        levels: L, at least 2.
    Returns:
        y [B, ...] in [0, 1), log_det [B] = -D log L.
    Raises:
        AssertionError: no event axis, `x` is not integer, `uniform` not floating, or shapes differ (at trace time).
        ValueError: `levels` is smaller than 2.
    Source: Theis, van den Oord & Bethge, "A note on the evaluation of generative models", ICLR 2016,
        arXiv:1511.01844, section 3.1.
    """
    _assert_batch_of_events(x)
    chex.assert_equal_shape([x, uniform])
    chex.assert_type([x, uniform], [int, float])
    _check_levels(levels)
    level = x.astype(uniform.dtype)
    # Off the edges by what the division and `quantize` may round: in float32 255 + 0.9999999 is 256.
    margin = 2.0 * jnp.finfo(uniform.dtype).eps
    v = jnp.clip(level + uniform, level * (1.0 + margin), (level + 1.0) * (1.0 - margin))
    y = jnp.where((level >= 0) & (level < levels), v / levels, jnp.nan)
    return y, jnp.full(x.shape[:1], -math.prod(x.shape[1:]) * math.log(levels), uniform.dtype)


def quantize(y: Array, *, levels: int) -> Array:
    """The level that a point of the unit interval lies in, eq. (2): the way back for samples.

    Args:
        y: [...] points; those outside [0, 1) go to the nearest level.
        levels: L, at least 2.
    Returns:
        [...] int32 levels 0..L-1.
    Raises:
        AssertionError: `y` is not floating (at trace time).
        ValueError: `levels` is smaller than 2.
    """
    chex.assert_type(y, float)
    _check_levels(levels)
    return jnp.clip(jnp.floor(y * levels), 0, levels - 1).astype(jnp.int32)


def logit(y: Array, *, alpha: float) -> tuple[Array, Array]:
    """The unit interval stretched over the real line, eq. (3).

    RealNVP prints a + (1 - a) y, which takes y = 1 to infinity; 1 - 2 a keeps both ends at the same distance.

    Args:
        y: [B, ...] points of [0, 1].
        alpha: a, in (0, 1/2): how far s stays from 0 and 1; RealNVP takes 0.05.
    Returns:
        h [B, ...], log_det [B].
    Raises:
        AssertionError: no event axis or `y` is not floating (at trace time).
        ValueError: `alpha` is not in (0, 1/2).
    Source: Dinh, Sohl-Dickstein & Bengio, "Density Estimation Using Real NVP", ICLR 2017, arXiv:1605.08803,
        section 4.1.
    """
    _assert_batch_of_events(y)
    chex.assert_type(y, float)
    _check_alpha(alpha)
    slope = 1.0 - 2.0 * alpha
    log_s = jnp.log(alpha + slope * y)
    log_1_minus_s = jnp.log(alpha + slope * (1.0 - y))  # not 1 - s, which loses the digits of a small alpha
    return log_s - log_1_minus_s, sum_except_batch(math.log(slope) - log_s - log_1_minus_s)


def logit_inverse(h: Array, *, alpha: float) -> tuple[Array, Array]:
    """Inverse of eq. (3): y = (sigmoid(h) - a) / (1 - 2 a).

    Args:
        h: [B, ...] real.
        alpha: a, in (0, 1/2), as in `logit`.
    Returns:
        y [B, ...], in (0, 1) up to a margin of a / (1 - 2 a) on either side, log_det [B] of the inverse.
    Raises:
        AssertionError: no event axis or `h` is not floating (at trace time).
        ValueError: `alpha` is not in (0, 1/2).
    """
    _assert_batch_of_events(h)
    chex.assert_type(h, float)
    _check_alpha(alpha)
    slope = 1.0 - 2.0 * alpha
    y = (jax.nn.sigmoid(h) - alpha) / slope
    return y, sum_except_batch(jax.nn.log_sigmoid(h) + jax.nn.log_sigmoid(-h) - math.log(slope))


def _assert_batch_of_events(x: Array) -> None:
    chex.assert_rank(x, set(range(2, 9)))


def _check_levels(levels: int) -> None:
    if levels < 2:
        raise ValueError(f"levels must be at least 2: got {levels}.")


def _check_alpha(alpha: float) -> None:
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha must lie between 0 and 1/2: got {alpha}.")
