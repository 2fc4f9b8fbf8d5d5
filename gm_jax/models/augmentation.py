"""Augmentations that do not leak into samples: the network is conditioned on them (EDM, appendix F.2).

Each of six changes of an image is drawn with probability p, the first one always, and described by numbers that are 0
if it is not drawn. Samples are drawn with zeros, so that they look like the data:

    mirror      left to right, with probability 1/2                              0 or 1                  (1)
    flip        upside down, with probability 1/2                                0 or 1                  (2)
    scale       by 2^(0.2 z)                                                     z                       (3)
    rotate      by an angle a, uniform on the circle                             cos a - 1, sin a        (4)
    stretch     by 2^(0.2 z) along an axis at the angle b, and by its inverse    z cos b, z sin b        (5)
                across; b is 0 or, with probability 1/2, uniform on the circle
    translate   by 1/8 of the sides times z_1, z_2                               z_1, z_2                (6)

z are standard normal.

Source: Karras et al., NeurIPS 2022, arXiv:2206.00364, appendix F.2; its code applies (3) to (6) in this order.
"""

import jax
import jax.numpy as jnp

from gm_jax.ops import augmentation
from gm_jax.types import Array, Key

NUM_LABELS = 9
_LOG_SCALE, _SHIFT = 0.2, 0.125


def augment(key: Key, images: Array, *, probability: float) -> tuple[Array, Array]:
    """Augments images.

    Args:
        key: of all draws.
        images: [B, H, W, C] floating.
        probability: p of (2) to (6), above 0.
    Returns:
        Images [B, H, W, C], and what was done to each of them [B, 9].
    """
    count, (height, width) = images.shape[0], images.shape[1:3]
    is_drawn = jax.random.bernoulli(jax.random.fold_in(key, 0), probability, (5, count))
    mirror, flip = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.5, (2, count))
    flip = flip & is_drawn[0]
    z = jax.random.normal(jax.random.fold_in(key, 2), (4, count))
    angle = jax.random.uniform(jax.random.fold_in(key, 3), (2, count), minval=-jnp.pi, maxval=jnp.pi)
    is_turned = jax.random.bernoulli(jax.random.fold_in(key, 4), 0.5, (count,))

    scale, rotate, stretch = z[0] * is_drawn[1], angle[0] * is_drawn[2], z[1] * is_drawn[3]
    axis, shift = angle[1] * is_turned, z[2:] * is_drawn[4:]
    factor, along = jnp.exp2(_LOG_SCALE * scale), jnp.exp2(_LOG_SCALE * stretch)
    matrix = augmentation.scaling(factor, factor) @ augmentation.rotation(rotate)
    matrix = (
        matrix @ augmentation.rotation(-axis) @ augmentation.scaling(along, 1.0 / along) @ augmentation.rotation(axis)
    )
    matrix = matrix @ augmentation.translation(_SHIFT * width * shift[0], _SHIFT * height * shift[1])

    x = jnp.where(mirror[:, None, None, None], images[:, :, ::-1], images)
    x = jnp.where(flip[:, None, None, None], x[:, ::-1], x)
    # The filters of the identity have rounding errors.
    is_mapped = jnp.any(is_drawn[1:], axis=0)
    x = jnp.where(is_mapped[:, None, None, None], augmentation.resample(x, matrix), x)
    of_stretch = (stretch * jnp.cos(axis), stretch * jnp.sin(axis))
    labels = (mirror, flip, scale, jnp.cos(rotate) - 1.0, jnp.sin(rotate), *of_stretch, *shift)
    return x, jnp.stack([label.astype(x.dtype) for label in labels], axis=1)
