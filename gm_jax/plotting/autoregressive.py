"""Completions by an autoregressive model: the second half of an image, drawn given its first half."""

import math
from collections.abc import Callable, Mapping

from gm_jax.models.autoregressive import Autoregressive
from gm_jax.plotting import layout
from gm_jax.types import Array, Key, ModelState, Params


def grids(
    model: Autoregressive, shape: tuple[int, ...]
) -> Mapping[str, Callable[[Params, ModelState, Key, Array], Array]]:
    """Pictures of the model as functions (params, model_state, key, x) -> [rows, columns, *shape] of data.

    completions: rows of data, each above the completions of its first half (the top half, in raster order).

    Args:
        model: the model.
        shape: shape of one example.
    """

    def completions(params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        examples = layout.first_examples(x)
        return layout.rows_above(examples, model.complete(params, key, examples, math.prod(shape) // 2))

    return {"completions": completions}
