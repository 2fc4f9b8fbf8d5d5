"""What a restricted Boltzmann machine has learned: its filters, and its chains over time."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp

from gm_jax.models.rbm import RestrictedBoltzmannMachine
from gm_jax.plotting.layout import Grid
from gm_jax.types import Array, Key, ModelState, Params

_KEPT = 10  # states of each chain in the picture


def grids(
    model: RestrictedBoltzmannMachine, shape: tuple[int, ...]
) -> Mapping[str, Callable[[Params, ModelState, Key, Array], Grid]]:
    """Pictures of the model as functions (params, model_state, key, x) -> Grid of data.

    chains: one chain per row, means of states at equal distances, of which the last is a sample. For images also
    filters: the weights of the hundred hidden units with the largest weights, each on its own scale with 0 in the
    middle.

    Args:
        model: the model.
        shape: shape of one example.
    """

    def chains(params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
        keep_every = max(1, model.sampling_sweeps // _KEPT)
        kept = model.chains(params, key, 10, keep_every=keep_every)
        first = model.sampling_sweeps - len(kept) * keep_every
        sweeps = (first + (index + 1) * keep_every for index in range(len(kept)))
        return Grid(
            jnp.stack([model.mean(params, key, v) for v in kept], axis=1),
            title="Gibbs chains, one in each row, by the number of sweeps; the last column is a sample. Shown are the "
            "means that the pixels are drawn from.",
            columns=tuple(f"{count:,}" for count in sweeps),
        )

    def filters(params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
        weights = params["rbm"]["kernel"].T
        count = min(100, len(weights) // 10 * 10) or len(weights)
        largest = jnp.argsort(-jnp.sum(weights**2, axis=1))[:count]
        weights = weights[largest] / jnp.max(jnp.abs(weights[largest]), axis=1, keepdims=True)
        levels = (model.levels - 1) * (0.5 + 0.5 * weights)
        return Grid(
            levels.reshape(-1, min(10, count), *shape),
            title=f"Filters: the {count} hidden units with the largest weights. Black is negative, grey 0, white "
            "positive, for each unit on its own scale.",
        )

    return {"chains": chains, "filters": filters} if len(shape) == 3 else {"chains": chains}
