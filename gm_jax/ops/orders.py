"""Orders of the dimensions of an image or a sequence, by name.

An order is [D] int32, the dimension at each place: dimension 0 ... D-1 are those of `x.reshape(D)`, channels fastest.
Places differ; the channels of a place follow each other.
"""

from collections.abc import Mapping

import numpy as np


def raster(shape: tuple[int, ...]) -> np.ndarray:
    """Row by row, from left to right: 0 ... D-1.

    Args:
        shape: of one example.
    Returns:
        [D] int32.
    """
    return np.arange(np.prod(shape, dtype=int), dtype=np.int32)


def column(shape: tuple[int, ...]) -> np.ndarray:
    """Column by column, from top to bottom, of an image [H, W, C]."""
    dims = _dims(shape)
    return dims.swapaxes(0, 1).reshape(-1)


def spiral(shape: tuple[int, ...]) -> np.ndarray:
    """From the centre of an image [H, W, C] outwards: clockwise around the border, inwards, in reverse."""
    dims = _dims(shape)
    rings = []
    while dims.shape[0] and dims.shape[1]:
        rings.append(dims[0])
        dims = np.rot90(dims[1:])
    return np.concatenate(rings)[::-1, :].reshape(-1)


def random(shape: tuple[int, ...], *, seed: int = 0) -> np.ndarray:
    """A drawn order, of dimensions and not of places."""
    return np.random.default_rng(seed).permutation(np.prod(shape, dtype=int)).astype(np.int32)


def named(shape: tuple[int, ...]) -> Mapping[str, np.ndarray]:
    """Returns the orders that data of a shape have, by name: raster and random; of images column and spiral too."""
    of_images = {"column": column(shape), "spiral": spiral(shape)} if len(shape) == 3 else {}
    return {"raster": raster(shape), **of_images, "random": random(shape)}


def _dims(shape: tuple[int, ...]) -> np.ndarray:
    """Returns the dimensions [H, W, C] int32 of an image."""
    if len(shape) != 3:
        raise ValueError(f"columns and spirals need an image [H, W, C], not {list(shape)}.")
    return raster(shape).reshape(shape)
