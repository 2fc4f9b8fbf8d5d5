"""Glow's actnorm and 1x1 convolution as one affine map of the channels, the same at every position.

    z = W (exp(log s) x + t) = M x + c,     M = W diag(exp(log s)),    c = W t                             (1)
    x = exp(-log s) (W^-1 z - t)            log det = H W (sum_c log s_c + log |det W|)                    (2)

M and c depend on the parameters alone, so that a model of many steps computes them once, for all of its steps together.
`ops.bijectors` has the two maps, one after the other, and the notation.
"""

import math
from typing import NamedTuple

import chex
import jax.numpy as jnp

from gm_jax.ops import bijectors
from gm_jax.ops.bijectors import LUFactors
from gm_jax.types import Array


class ChannelMap(NamedTuple):
    """An affine map of the channels.

    Attributes:
        matrix: [C, C]; a point is a row vector: z = x matrix + shift.
        shift: [C].
        log_det: [] of one position, in nats.
    """

    matrix: Array
    shift: Array
    log_det: Array


def channel_map(shift: Array, log_scale: Array, factors: LUFactors) -> ChannelMap:
    """Joins `bijectors.actnorm` and then `bijectors.invertible_conv`, eq. (1).

    Args:
        shift: [C] t.
        log_scale: [C] log s.
        factors: the factors of W.
    Returns:
        The map from x to z.
    """
    rows = jnp.concatenate([jnp.diag(jnp.exp(log_scale)), shift[None]])
    rows, log_det = bijectors.invertible_conv(rows, factors)
    return ChannelMap(rows[:-1], rows[-1], log_det[0] + jnp.sum(log_scale))


def channel_map_inverse(shift: Array, log_scale: Array, factors: LUFactors) -> ChannelMap:
    """Joins the inverses, eq. (2): the map from z to x; arguments as in `channel_map`."""
    rows, log_det = bijectors.invertible_conv_inverse(jnp.eye(shift.shape[0], dtype=shift.dtype), factors)
    scale = jnp.exp(-log_scale)
    return ChannelMap(rows * scale[None], -shift * scale, log_det[0] - jnp.sum(log_scale))


def apply(x: Array, channels: ChannelMap) -> tuple[Array, Array]:
    """Maps points x [B, ..., C] to (z [B, ..., C], log_det [B]), in nats."""
    chex.assert_shape(channels.matrix, (x.shape[-1], x.shape[-1]))
    # Highest precision: an accelerator's default keeps 8 to 11 bits of each factor, too few to invert accurately.
    z = jnp.dot(x, channels.matrix, precision="highest") + channels.shift.reshape((1,) * (x.ndim - 1) + (-1,))
    return z, jnp.broadcast_to(math.prod(x.shape[1:-1]) * channels.log_det, x.shape[:1])
