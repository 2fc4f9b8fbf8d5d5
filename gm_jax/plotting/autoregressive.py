"""Pictures of an autoregressive model: completions of half an image, and the probabilities behind its samples."""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from gm_jax.models.autoregressive import Autoregressive
from gm_jax.plotting import layout
from gm_jax.plotting.layout import Grid
from gm_jax.types import Array, Key, ModelState, Params

_COMPLETED = 30  # examples, at most


def grids(
    model: Autoregressive, shape: tuple[int, ...], *, levels: int | None = None
) -> Mapping[str, Callable[[Params, ModelState, Key, Array], Grid]]:
    """Pictures of the model as functions (params, model_state, key, x) -> Grid.

    completions: rows of data, each above the completions of its first half (the top half, in raster order). If the
    model sees the data in black and white, a row between them shows what it sees.

    Args:
        model: the model.
        shape: shape of one example.
        levels: number of levels of the data.
    """
    num_kept = math.prod(shape) // 2

    def completions(params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
        examples = layout.first_examples(x, most=_COMPLETED)
        completed = model.complete(params, key, examples, num_kept)
        kept = jnp.asarray(model.network.orders)[0, :num_kept]
        given = jnp.zeros(math.prod(shape), bool).at[kept].set(True).reshape(shape)
        kinds = {"data": examples, "completed": completed}
        if model.likelihood.measure == "binary" and levels != 2:
            # With the key of `complete`, so that the given pixels are the same.
            seen = model.likelihood.prepare(jax.random.split(key, 3)[0], examples)
            kinds = {"data": examples, "as the model sees it": model.likelihood.to_data(seen), "completed": completed}
        rows = layout.rows_in_turn(*kinds.values())
        is_completed = jnp.arange(len(rows)) % len(kinds) == len(kinds) - 1
        return Grid(
            rows,
            given=is_completed.reshape(-1, *[1] * len(shape)) & given[None],
            title="Completions: the model is given the blue half of each picture, and draws the other half.",
            rows=tuple(kinds),
            group=len(kinds),
        )

    return {"completions": completions}
