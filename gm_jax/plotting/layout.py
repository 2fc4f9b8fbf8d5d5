"""Arrangements of examples in a grid that fit any number of them, with what a reader must know about its rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.types import Array

_COLUMNS = 10
_MOST = 50  # examples of the data in one picture


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Grid:
    """Examples in rows and columns, and the words that explain them.

    The words are static: they pass through `jit` unchanged.

    Attributes:
        examples: [rows, columns, ...] in data space.
        values: [rows] numbers, each of which replaces "{}" in the label of its row; None without any.
        given: [rows, ...] bool, the pixels that the model was given, which are tinted; None without any.
        title: what the picture shows, in one or two sentences.
        rows: label of each row. Fewer labels than rows are repeated; "" is no label.
        columns: label of each column; () for none.
        group: rows that belong together: a gap follows each group. 0 for one group.
    """

    examples: Array | np.ndarray
    values: Array | np.ndarray | None = None
    given: Array | np.ndarray | None = None
    title: str = dataclasses.field(default="", metadata={"static": True})
    rows: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})
    columns: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})
    group: int = dataclasses.field(default=0, metadata={"static": True})

    def row_labels(self) -> list[str]:
        """Returns the label of every row, with its value."""
        num = len(self.examples)
        if not self.rows:
            return [""] * num
        values = [None] * num if self.values is None else [value.item() for value in self.values]
        return [self.rows[row % len(self.rows)].format(value) for row, value in enumerate(values)]


def first_examples(x: Array, *, most: int = _MOST) -> Array:
    """Returns the first examples of x [B, ...] that fill rows of ten, or one shorter row; at most `most`."""
    columns = min(_COLUMNS, len(x))
    return x[: min(most, len(x)) // max(columns, 1) * columns]


def rows_in_turn(*kinds: Array) -> Array:
    """Arranges arrays [n, ...], as `first_examples` returns, as [rows, columns, ...]: their rows take turns."""
    columns = min(_COLUMNS, len(kinds[0]))
    dtype = jnp.result_type(*kinds)
    rows = [leaf.astype(dtype).reshape(-1, columns, *leaf.shape[1:]) for leaf in kinds]
    return jnp.stack(rows, axis=1).reshape(-1, columns, *kinds[0].shape[1:])


def pairs(x: Array) -> tuple[Array, Array]:
    """Returns the first and the second examples of ten pairs from x [B, ...], or of fewer if x is too small."""
    num = min(_COLUMNS, len(x) // 2)
    return x[:num], x[num : 2 * num]
