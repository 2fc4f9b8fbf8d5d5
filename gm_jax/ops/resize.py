"""Bilinear resizing as in TensorFlow 1, the resizing behind every published FID.

Notation: an image of h rows is resized to H rows; row Y of the result samples the image at y = Y h / H, between rows l
and l + 1.

    l = floor(y),  t = y - l,   out[Y] = in[l] + (in[min(l + 1, h - 1)] - in[l]) t                 (1)

Columns are resized likewise, before the rows. This aligns the corners of pixels and does not smooth when an image
shrinks. A good resize aligns the centres and smooths; each difference changes the FID by several points (Parmar, Zhang
& Zhu, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", CVPR 2022, arXiv:2104.11222). Published
numbers are nevertheless defined by (1).
"""

import chex
import jax.numpy as jnp
import numpy as np

from gm_jax.types import Array


def bilinear_tf1(x: Array, *, height: int, width: int) -> Array:
    """Resizes images, eq. (1).

    Args:
        x: [B, h, w, C] floats.
        height: H, rows of the result.
        width: W, columns of the result.
    Returns:
        [B, H, W, C], of the dtype of `x`.
    """
    chex.assert_rank(x, 4)
    chex.assert_type(x, float)
    return _along(_along(x, 2, width), 1, height)


def _along(x: Array, axis: int, size: int) -> Array:
    # Always in float32: a position that falls on a row must fall on the same row as in TensorFlow.
    position = np.arange(size, dtype=np.float32) * np.float32(x.shape[axis] / size)
    lower = position.astype(np.int32)
    upper = np.minimum(lower + 1, x.shape[axis] - 1)
    shape = [1] * x.ndim
    shape[axis] = size
    share = jnp.asarray((position - lower).reshape(shape), x.dtype)
    first, second = jnp.take(x, lower, axis=axis), jnp.take(x, upper, axis=axis)
    return first + (second - first) * share
