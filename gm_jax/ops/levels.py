"""Scaling of images: integer levels to [0, 1] or [-1, 1], and back.

Notation: x [...] integer levels 0 ... L-1, as a data set ships them; u = x / (L - 1) in [0, 1]; s = 2 u - 1 in [-1, 1].
"""

import math
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.types import Array


def to_unit(x: Array, *, levels: int, dtype: DTypeLike = jnp.float32) -> Array:
    """Scales levels to [0, 1].

    Args:
        x: [...] levels 0 ... levels - 1, of any dtype.
        levels: L, at least 2.
        dtype: floating dtype of the result.
    Returns:
        [...] u; both ends are exact.
    """
    return x.astype(dtype) / (levels - 1)


def to_symmetric(x: Array, *, levels: int, dtype: DTypeLike = jnp.float32) -> Array:
    """Scales levels to [-1, 1].

    Args:
        x: [...] levels 0 ... levels - 1, of any dtype.
        levels: L, at least 2.
        dtype: floating dtype of the result.
    Returns:
        [...] s; both ends are exact.
    """
    return 2.0 * x.astype(dtype) / (levels - 1) - 1.0


def symmetric_to_unit(s: Array) -> Array:
    """Moves [-1, 1] to [0, 1]: u = (s + 1) / 2."""
    return 0.5 * (s + 1.0)


def unit_to_symmetric(u: Array) -> Array:
    """Moves [0, 1] to [-1, 1]: s = 2 u - 1."""
    return 2.0 * u - 1.0


def from_symmetric(s: Array, *, levels: int, dtype: DTypeLike = jnp.uint8) -> Array:
    """Rounds values on [-1, 1] to the nearest level, the inverse of `to_symmetric`.

    Args:
        s: [...] floating; values outside [-1, 1] become the first or the last level.
        levels: L, at least 2; at most 256 for uint8.
        dtype: integer dtype of the result.
    Returns:
        [...] levels.
    """
    return nearest_level(symmetric_to_unit(s) * (levels - 1), levels=levels, dtype=dtype)


def nearest_level(x: Array, *, levels: int, dtype: DTypeLike = jnp.uint8) -> Array:
    """Rounds values on the scale of the levels, 0 ... L-1, to the nearest level.

    Args:
        x: [...] floating; values outside the range become the first or the last level.
        levels: L, at least 2; at most 256 for uint8.
        dtype: integer dtype of the result.
    Returns:
        [...] levels.
    """
    return jnp.clip(jnp.round(x), 0, levels - 1).astype(dtype)


def measure(levels: int | None) -> str:
    """Names the base measure of a probability of data with so many levels, for `types.Likelihood.measure`.

    >>> measure(2), measure(256), measure(None)
    ('binary', '256 levels', 'continuous')
    """
    if levels is None:
        return "continuous"
    return "binary" if levels == 2 else f"{levels} levels"


def space_setting(side: str | None, shape: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
    """Names the space of a density, which fixes its unit, for `types.Likelihood.settings`.

    Args:
        side: the range of one dimension: "R" for points, "[0,16]" for 17 levels in level units, "[0,1]" for scaled
            levels; None for a probability, which has no unit.
        shape: of one example.

    >>> space_setting("[0,16]", (8, 8, 1)), space_setting(None, (2,))
    ((('space', '[0,16]^64'),), ())
    """
    return () if side is None else (("space", f"{side}^{math.prod(shape)}"),)
