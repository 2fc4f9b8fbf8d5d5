"""The chains of an energy-based model over time."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from gm_jax.models.energy import EnergyBasedModel
from gm_jax.models.jem import JointEnergyModel
from gm_jax.plotting.layout import Grid
from gm_jax.types import Array, Key, ModelState, Params

_KEPT = 10  # states of each chain in the picture


def grids(
    model: EnergyBasedModel, shape: tuple[int, ...]
) -> Mapping[str, Callable[[Params, ModelState, Key, Array], Grid]]:
    """Pictures of the model as functions (params, model_state, key, x) -> Grid of data.

    chains: one chain per row, from noise at the left, in equal numbers of Langevin steps, together about as many as a
    sample takes. For images only.

    Args:
        model: the model.
        shape: shape of one example.
    """

    def chains(params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
        noise_key, key = jax.random.split(key)
        num_steps = max(1, model.chains.sampling_steps // (_KEPT - 1))

        def move(h: Array, key: Key) -> tuple[Array, Array]:
            moved = model.run_chains(params, model_state, key, h, num_steps=num_steps)
            return moved, moved

        start = model.noise(noise_key, 10)
        _, states = jax.lax.scan(move, start, jax.random.split(key, _KEPT - 1))
        kept = jnp.concatenate([start[None], states])
        data = model.space.to_data(kept.reshape(-1, *shape)).reshape(kept.shape)
        return Grid(
            jnp.swapaxes(data, 0, 1),
            title="Langevin chains, one in each row, from noise (left), by the number of steps",
            columns=("noise", *(f"{count * num_steps}" for count in range(1, _KEPT))),
        )

    return {"chains": chains} if len(shape) == 3 else {}


def class_grids(
    model: JointEnergyModel, shape: tuple[int, ...]
) -> Mapping[str, Callable[[Params, ModelState, Key, Array], Grid]]:
    """Pictures of a joint energy model as functions (params, model_state, key, x) -> Grid of data.

    classes: samples of one class per row, each class's chains from noise. For images only.

    Args:
        model: the model.
        shape: shape of one example.
    """

    def classes(params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
        labels = jnp.repeat(jnp.arange(model.num_classes), _KEPT)
        drawn = model.sample(params, model_state, key, len(labels), label=labels)
        return Grid(
            drawn.reshape(model.num_classes, _KEPT, *shape),
            title="Samples of each class",
            rows=tuple(f"class {index}" for index in range(model.num_classes)),
        )

    return {"classes": classes} if len(shape) == 3 else {}
