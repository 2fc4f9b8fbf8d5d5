"""What a restricted Boltzmann machine has learned: its filters, and its chains over time."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp

from gm_jax.models.rbm import RestrictedBoltzmannMachine
from gm_jax.types import Array, Key, ModelState, Params

_KEPT = 10  # states of each chain in the picture


def grids(
    model: RestrictedBoltzmannMachine, shape: tuple[int, ...]
) -> Mapping[str, Callable[[Params, ModelState, Key, Array], Array]]:
    """Pictures of the model as functions (params, model_state, key, x) -> [rows, columns, *shape] of data.

    chains: one chain per row, states at equal distances, of which the last is a sample. For images also filters:
    the weights of the hundred hidden units with the largest weights, each on its own scale with 0 in the middle.

    Args:
        model: the model.
        shape: shape of one example.
    """

    def chains(params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        keep_every = max(1, model.sampling_sweeps // _KEPT)
        kept = model.chains(params, key, 10, keep_every=keep_every)
        return jnp.swapaxes(model.to_data(kept.reshape(-1, kept.shape[-1])).reshape(*kept.shape[:2], *shape), 0, 1)

    def filters(params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        weights = params["rbm"]["kernel"].T
        count = min(100, len(weights) // 10 * 10) or len(weights)
        largest = jnp.argsort(-jnp.sum(weights**2, axis=1))[:count]
        weights = weights[largest] / jnp.max(jnp.abs(weights[largest]), axis=1, keepdims=True)
        levels = (model.levels - 1) * (0.5 + 0.5 * weights)
        return levels.reshape(-1, min(10, count), *shape)

    return {"chains": chains, "filters": filters} if len(shape) == 3 else {"chains": chains}
