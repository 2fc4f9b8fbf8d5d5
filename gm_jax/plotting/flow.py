"""The latent space of a flow: interpolations between data, and samples at several temperatures."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models.flow import Flow
from gm_jax.plotting import layout
from gm_jax.plotting.layout import Grid
from gm_jax.types import Array, Key, ModelState, Params

TEMPERATURES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the rows of `temperatures`, from top to bottom


def interpolate(
    model: Flow, params: Params, model_state: ModelState, key: Key, x_a: Array, x_b: Array, *, num: int
) -> Array:
    """Decodes points on the straight lines between the latents of pairs; the ends are the pairs themselves.

    Args:
        model: the flow.
        params: its parameters.
        model_state: its model state.
        key: noise that dequantises the data.
        x_a: [B, ...] starts of the lines.
        x_b: [B, ...] ends of the lines.
        num: points on each line, ends included.
    Returns:
        [B, num, ...], as the data set ships them.
    Source: Kingma & Dhariwal, "Glow", NeurIPS 2018, arXiv:1807.03039.
    """
    key_a, key_b = jax.random.split(key)
    z_a, z_b = (model.encode(params, model_state, *pair) for pair in ((key_a, x_a), (key_b, x_b)))
    z = jnp.linspace(z_a, z_b, num, axis=1)
    x = model.decode(params, model_state, z.reshape(-1, z.shape[-1]))
    return x.reshape(*z.shape[:2], *x.shape[1:])


def grids(model: Flow, shape: tuple[int, ...]) -> Mapping[str, Callable[[Params, ModelState, Key, Array], Grid]]:
    """Pictures of a flow as functions (params, model_state, key, x) -> Grid of data.

    temperatures: the same ten latents in every row, multiplied by each of TEMPERATURES. interpolations: up to
    ten lines between pairs of x.

    Args:
        model: the flow.
        shape: shape of one example; the mapping is empty unless it is the shape of an image.
    """

    def temperatures(params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
        return Grid(
            jnp.stack([model.sample(params, model_state, key, 10, temperature=t) for t in TEMPERATURES]),
            title="Temperatures: samples from the same ten latents in every row, multiplied by T. 1 is the model.",
            rows=tuple(f"T = {temperature:g}" for temperature in TEMPERATURES),
        )

    def interpolations(params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
        first, second = layout.pairs(x)
        empty = jnp.zeros((0, 10, *shape))
        inner = (f"{t:.2f}" for t in np.linspace(0.0, 1.0, 10)[1:-1])
        return Grid(
            interpolate(model, params, model_state, key, first, second, num=10) if len(first) else empty,
            title="Interpolations: pictures whose latents are on the line between the latents of two pictures",
            columns=("data", *inner, "data"),
        )

    return {"temperatures": temperatures, "interpolations": interpolations} if len(shape) == 3 else {}
