"""Pictures of masked diffusion: holes of several shapes, filled."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models.masked_diffusion import MaskedDiffusion
from gm_jax.ops import orders
from gm_jax.plotting import layout
from gm_jax.plotting.layout import Grid
from gm_jax.types import Array, Key, ModelState, Params

_COMPLETED = 10  # examples, at most


def grids(
    model: MaskedDiffusion, shape: tuple[int, ...], *, levels: int | None = None
) -> Mapping[str, Callable[[Params, ModelState, Key, Array], Grid]]:
    """Pictures of the model as functions (params, model_state, key, x) -> Grid.

    completions: a row of data, and below it the same examples with holes that the model has filled: the second half of
    the dimensions, three quarters of them at random, and every other row of an image. If the model sees the data in
    black and white, the second row shows what it sees.

    Args:
        model: the model.
        shape: shape of one example.
        levels: number of levels of the data.
    """
    dims = np.arange(model.num_dims)
    holes = {
        "first half given": dims < model.num_dims // 2,
        "a quarter given": np.isin(dims, orders.random(shape)[: model.num_dims // 4]),
    }
    if len(shape) == 3:
        holes["every other row given"] = np.broadcast_to(np.arange(shape[0])[:, None, None] % 2 == 0, shape).reshape(-1)
    given = {name: jnp.asarray(mask.reshape(shape)) for name, mask in holes.items()}

    def completions(params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
        examples = layout.first_examples(x, most=_COMPLETED)
        rows = {"data": examples}
        if model.likelihood.measure == "binary" and levels != 2:
            # With the key of `complete`, so that the given pixels are the same.
            seen = model.likelihood.prepare(jax.random.split(key)[0], examples)
            rows["as the model sees it"] = model.likelihood.to_data(seen)
        rows |= {name: model.complete(params, key, examples, mask[None]) for name, mask in given.items()}
        nothing = jnp.zeros(shape, bool)
        return Grid(
            layout.rows_in_turn(*rows.values()),
            given=jnp.stack([given.get(name, nothing) for name in rows]),
            title="Completions: the model is given the blue pixels, and draws the others.",
            rows=tuple(rows),
        )

    return {"completions": completions}
