"""Arrangements of examples in a grid that fit any number of them."""

import jax.numpy as jnp

from gm_jax.types import Array

_COLUMNS = 10
_MOST = 50  # examples of the data in one picture


def first_examples(x: Array) -> Array:
    """Returns the first examples of x [B, ...] that fill rows of ten, or one shorter row; at most fifty."""
    columns = min(_COLUMNS, len(x))
    return x[: min(_MOST, len(x)) // max(columns, 1) * columns]


def rows_above(above: Array, below: Array) -> Array:
    """Arranges two arrays [n, ...], as `first_examples` returns, as [rows, columns, ...]: their rows take turns."""
    columns = min(_COLUMNS, len(above))
    rows = [leaf.reshape(-1, columns, *leaf.shape[1:]) for leaf in (above.astype(below.dtype), below)]
    return jnp.stack(rows, axis=1).reshape(-1, columns, *above.shape[1:])


def pairs(x: Array) -> tuple[Array, Array]:
    """Returns the first and the second examples of ten pairs from x [B, ...], or of fewer if x is too small."""
    num = min(_COLUMNS, len(x) // 2)
    return x[:num], x[num : 2 * num]
