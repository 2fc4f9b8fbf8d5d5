"""Bilinear resizing as TensorFlow 1 did it, which is how images were resized for every published FID.

Notation: an image of h rows becomes one of H; row Y of it lies at y = Y h / H of the image, between rows l and l + 1.

    l = floor(y),  t = y - l,   out[Y] = in[l] + (in[min(l + 1, h - 1)] - in[l]) t                 (1)

and columns likewise, before the rows. The corners of pixels are aligned, and not their centres, and nothing is
smoothed when an image shrinks: both are departures from what a resize should be, and both change the FID by several
points (Parmar, Zhang & Zhu, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", CVPR 2022,
arXiv:2104.11222). Here they are the definition.
"""

import chex
import jax.numpy as jnp
import numpy as np

from gm_jax.types import Array


def bilinear_tf1(x: Array, *, height: int, width: int) -> Array:
    """Resizes images by eq. (1).

    Args:
        x: [B, h, w, C] floats.
        height: H of the result.
        width: W.
    Returns:
        [B, H, W, C], of the dtype of `x`.
    Raises:
        AssertionError: x is not floating of rank 4 (at trace time).
    """
    chex.assert_rank(x, 4)
    chex.assert_type(x, float)
    return _along(_along(x, 2, width), 1, height)


def _along(x: Array, axis: int, size: int) -> Array:
    # In float32 whatever x is: a position that falls on a row must fall on the same row as TensorFlow's.
    position = np.arange(size, dtype=np.float32) * np.float32(x.shape[axis] / size)
    lower = position.astype(np.int32)
    upper = np.minimum(lower + 1, x.shape[axis] - 1)
    shape = [1] * x.ndim
    shape[axis] = size
    share = jnp.asarray((position - lower).reshape(shape), x.dtype)
    first, second = jnp.take(x, lower, axis=axis), jnp.take(x, upper, axis=axis)
    return first + (second - first) * share
