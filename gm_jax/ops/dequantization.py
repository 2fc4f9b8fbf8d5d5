"""Dequantization of integer levels, and the map from the unit interval to the real line, with log-determinants.

Notation: k in {0, ..., L-1} a level, L levels, u uniform noise in [0, 1), y in [0, 1), h real; D dimensions. The
direction is from the data towards the latent, as in `ops.bijectors`.

    uniform dequantisation:  y = (k + u) / L                       log det = -D log L                  (1)
    quantisation:            k = floor(L y), within 0 ... L-1                                          (2)
    logit:                   h = log s - log(1 - s),  s = a + (1 - 2 a) y
                             log det = sum_i log(1 - 2 a) - log s_i - log(1 - s_i)                     (3)

Meaning of the likelihood. Let q be a density over y or h, with all log-determinants counted. Then p(v) = q(y) L^-D is
the density of v = k + u, in the measure of the levels, and

    E_u log p(k + u) <= log P(k),    P(k) = integral of p over [k, k + 1)^D                            (4)

by Jensen. So -log q(y) - log det, with fresh noise at each evaluation, is an upper bound on the nats of L-level data.
It can be compared with any model of the same L levels (an autoregressive model's likelihood is exact), and
`nats_to_bits_per_dim` converts it to bits per dimension: exactly log2 L for q = 1, the uniform density. A density of y
without (1), or of h without (3), is in another measure, off by D log L nats or more.
"""

import math

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops import checks
from gm_jax.ops.reductions import sum_except_batch
from gm_jax.types import Array


def uniform_dequantize(x: Array, uniform: Array, *, levels: int) -> tuple[Array, Array]:
    """Adds uniform noise to levels and scales them to the unit interval, eq. (1).

    Without noise the likelihood is unbounded: a density can shrink to spikes at the levels.

    Args:
        x: [B, ...] integer levels 0..L-1; any other level gives NaN.
        uniform: [B, ...] noise in [0, 1), the shape of `x`; draw it again at each step and evaluation.
        levels: L, at least 2.
    Returns:
        y [B, ...] in [0, 1), log_det [B] = -D log L.
    Raises:
        ValueError: `levels` is smaller than 2.
    Source: Theis, van den Oord & Bethge, "A note on the evaluation of generative models", ICLR 2016,
        arXiv:1511.01844, section 3.1.
    """
    checks.assert_batch_of_events(x)
    chex.assert_equal_shape([x, uniform])
    chex.assert_type([x, uniform], [int, float])
    checks.check_levels(levels)
    level = x.astype(uniform.dtype)
    # Keep off the edges by the rounding error of the division and of `quantize`: in float32 255 + 0.9999999 is 256.
    margin = 2.0 * jnp.finfo(uniform.dtype).eps
    v = jnp.clip(level + uniform, level * (1.0 + margin), (level + 1.0) * (1.0 - margin))
    y = jnp.where((level >= 0) & (level < levels), v / levels, jnp.nan)
    return y, jnp.full(x.shape[:1], -math.prod(x.shape[1:]) * math.log(levels), uniform.dtype)


def quantize(y: Array, *, levels: int) -> Array:
    """Finds the level of each point of the unit interval, eq. (2); it turns samples into levels.

    Args:
        y: [...] points; those outside [0, 1) become the nearest level.
        levels: L, at least 2.
    Returns:
        [...] int32 levels 0..L-1.
    Raises:
        ValueError: `levels` is smaller than 2.
    """
    chex.assert_type(y, float)
    checks.check_levels(levels)
    return jnp.clip(jnp.floor(y * levels), 0, levels - 1).astype(jnp.int32)


def logit(y: Array, *, alpha: float) -> tuple[Array, Array]:
    """Maps the unit interval to the real line, eq. (3).

    RealNVP prints a + (1 - a) y, which maps y = 1 to infinity; 1 - 2 a keeps both ends at the same distance.

    Args:
        y: [B, ...] points of [0, 1].
        alpha: a, in (0, 1/2): the distance of s from 0 and 1; 0.05 in RealNVP.
    Returns:
        h [B, ...], log_det [B].
    Raises:
        ValueError: `alpha` is not in (0, 1/2).
    Source: Dinh, Sohl-Dickstein & Bengio, "Density Estimation Using Real NVP", ICLR 2017, arXiv:1605.08803,
        section 4.1.
    """
    checks.assert_batch_of_events(y)
    chex.assert_type(y, float)
    _check_alpha(alpha)
    slope = 1.0 - 2.0 * alpha
    log_s = jnp.log(alpha + slope * y)
    log_1_minus_s = jnp.log(alpha + slope * (1.0 - y))  # not 1 - s, which loses the digits of a small alpha
    return log_s - log_1_minus_s, sum_except_batch(math.log(slope) - log_s - log_1_minus_s)


def logit_inverse(h: Array, *, alpha: float) -> tuple[Array, Array]:
    """Inverts eq. (3): y = (sigmoid(h) - a) / (1 - 2 a).

    Args:
        h: [B, ...] real.
        alpha: a, in (0, 1/2), as in `logit`.
    Returns:
        y [B, ...], in (0, 1) widened by a / (1 - 2 a) on either side, log_det [B] of the inverse.
    Raises:
        ValueError: `alpha` is not in (0, 1/2).
    """
    checks.assert_batch_of_events(h)
    chex.assert_type(h, float)
    _check_alpha(alpha)
    slope = 1.0 - 2.0 * alpha
    y = (jax.nn.sigmoid(h) - alpha) / slope
    return y, sum_except_batch(jax.nn.log_sigmoid(h) + jax.nn.log_sigmoid(-h) - math.log(slope))


def _check_alpha(alpha: float) -> None:
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha must be between 0 and 1/2; got {alpha}.")
