"""Geometric augmentations of images: an affine map about the centre, resampled without aliasing.

Notation: an image is a function of u = (x, y, 1), x and y in pixels from its centre, y downwards. A matrix M [3, 3]
makes a new image, whose value at u is that of the old one at M u; the product M N is M first, then N:

    out(u) = image(M u)                                                                                  (1)

Images are continued by mirroring about their outermost pixels, as far as one image beyond each side, and are 0 further
out. They are doubled in size by the filter of the wavelet sym6, (1) takes bilinear values there, and the same filter
halves them again, so that the identity returns the image. All three steps are linear; the first and the last are
matrices on each side.

Source: Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020, arXiv:2006.06676,
appendix B, for the resampling; Karras et al., NeurIPS 2022, arXiv:2206.00364, appendix F.2, for the maps of EDM. The
source mirrors no further than the largest map of a batch needs.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.types import Array

SYM6 = np.array(
    [
        *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
        *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
        *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
    ]
)
_EDGE = len(SYM6) // 4  # pixels around the result that its last filter needs


def scaling(factor_x: Array, factor_y: Array) -> Array:
    """Makes M [B, 3, 3] of images that grow by factors [B] along x and y."""
    return _matrix([[1.0 / factor_x, 0.0, 0.0], [0.0, 1.0 / factor_y, 0.0]])


def rotation(angle: Array) -> Array:
    """Makes M [B, 3, 3] of images that turn counter-clockwise by angles [B], in radians."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _matrix([[cos, -sin, 0.0], [sin, cos, 0.0]])


def translation(x: Array, y: Array) -> Array:
    """Makes M [B, 3, 3] of images that move by x [B] pixels to the right and y [B] pixels down."""
    return _matrix([[1.0, 0.0, -x], [0.0, 1.0, -y]])


def resample(images: Array, matrix: Array) -> Array:
    """Computes (1).

    Args:
        images: [B, H, W, C], with sides of at least 4.
        matrix: M [B, 3, 3].
    Returns:
        [B, H, W, C].
    """
    chex.assert_rank([images, matrix], [4, 3])
    chex.assert_type([images, matrix], float)
    height, width = images.shape[1:3]
    large = jnp.einsum("bhwc,yh,xw->byxc", images, *(jnp.asarray(_double(n), images.dtype) for n in (height, width)))
    # M at twice the size, about the centre of the doubled image, which lies half a pixel off.
    half, double = (jnp.diag(jnp.array([f, f, 1.0], images.dtype))[None] for f in (0.5, 2.0))
    shift = jnp.full(1, 0.5, images.dtype)
    matrix = translation(shift, shift) @ double @ matrix @ half @ translation(-shift, -shift)
    sides = [2 * (n + 2 * _EDGE) for n in (height, width)]
    y, x = (jnp.arange(n) + 0.5 - n / 2 for n in sides)
    places = jnp.stack([jnp.tile(x[None], (sides[0], 1)), jnp.tile(y[:, None], (1, sides[1]))])
    centre = jnp.array([large.shape[2], large.shape[1]], images.dtype) / 2 - 0.5

    def values(image: Array, matrix: Array) -> Array:
        at = jnp.einsum("ij,jyx->iyx", matrix[:2, :2], places) + (matrix[:2, 2] + centre)[:, None, None]

        def of_channel(channel: Array) -> Array:
            return jax.scipy.ndimage.map_coordinates(channel, [at[1], at[0]], order=1, mode="constant")

        return jax.vmap(of_channel, in_axes=2, out_axes=2)(image)

    halves = (jnp.asarray(_halve(n), images.dtype) for n in (height, width))
    return jnp.einsum("byxc,hy,wx->bhwc", jax.vmap(values)(large, matrix), *halves)


def _matrix(rows: list[list[Array | float]]) -> Array:
    batch = next(entry for row in rows for entry in row if isinstance(entry, jax.Array))
    entries = [[jnp.broadcast_to(jnp.asarray(entry, batch.dtype), batch.shape) for entry in row] for row in rows]
    last = [jnp.zeros_like(batch), jnp.zeros_like(batch), jnp.ones_like(batch)]
    return jnp.stack([jnp.stack(row, axis=-1) for row in [*entries, last]], axis=-2)


def _double(side: int) -> np.ndarray:
    """The matrix [2 (3 N - 2), N] that continues a side of N pixels by mirroring, and doubles it."""
    mirrored = np.pad(np.eye(side), ((side - 1, side - 1), (0, 0)), mode="reflect")
    spread = np.zeros((2 * len(mirrored) - 1, side))
    spread[::2] = mirrored
    padded = np.pad(spread, ((len(SYM6) // 2, len(SYM6) // 2), (0, 0)))
    return np.stack([np.convolve(column, SYM6, mode="valid") for column in padded.T], axis=1)


def _halve(side: int) -> np.ndarray:
    """The matrix [N, 2 (N + 6)] that halves a side which is 3 pixels wider at both ends, and cuts these."""
    padded = np.pad(np.eye(2 * (side + 2 * _EDGE)), (((len(SYM6) - 1) // 2,) * 2, (0, 0)))
    columns = [np.correlate(column, SYM6, mode="valid")[::2] for column in padded.T]
    return np.stack(columns, axis=1)[_EDGE:-_EDGE]
