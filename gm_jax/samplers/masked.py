"""Sampling of masked (absorbing) diffusion: masked dimensions are drawn and become visible, a few at each step.

    predict(x [n, D], is_masked [n, D]) -> outputs [n, D, P], the parameters of p(x_i | the visible dimensions)

With D steps each step reveals one dimension, in the sample's own order, and the samples have the distribution of the
chain rule in that order. With fewer steps, the dimensions of one step are drawn independently of each other given the
visible ones, which is an approximation.

Sources: Shi, Han, Wang, Doucet & Titsias, NeurIPS 2024, arXiv:2406.04329, section 3; Hoogeboom et al., "Autoregressive
Diffusion Models", ICLR 2022, arXiv:2110.02037, section 3 (parallel generation).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.samplers.autoregressive import DrawFn
from gm_jax.types import Array, Key

PredictFn = Callable[[Array, Array], Array]


def sample(
    predict: PredictFn,
    draw: DrawFn,
    key: Key,
    orders: Array,
    *,
    num_steps: int | None = None,
    x: Array | None = None,
    temperature: float | Array = 1.0,
) -> Array:
    """Draws samples, one pass of the network per step.

    Args:
        predict: the network.
        draw: (key, outputs [N, P], temperature) -> levels [N].
        key: noise.
        orders: [n, D] the dimension that each sample reveals at each place.
        num_steps: S, at most D; each step reveals D / S dimensions, rounded. None for D steps.
        x: [n, D] levels to keep; negative where a level is to be drawn. None to draw all.
        temperature: above 0; it divides the logits.
    Returns:
        [n, D] int32 levels, in the order of the data.
    Raises:
        ValueError: the number of steps is not between 1 and D.
    Source: Shi et al. (2024), section 3.
    """
    n, num_dims = orders.shape
    num_steps = num_dims if num_steps is None else num_steps
    if not 1 <= num_steps <= num_dims:
        raise ValueError(f"num_steps must be between 1 and {num_dims}, got {num_steps}.")
    places = jnp.argsort(orders, axis=1)
    unknown = jnp.ones((n, num_dims), bool) if x is None else x < 0
    start = jnp.zeros((n, num_dims), jnp.int32) if x is None else jnp.maximum(x, 0).astype(jnp.int32)

    def step(x: Array, s: Array) -> tuple[Array, None]:
        first, last = (jnp.round(num_dims * at / num_steps) for at in (s, s + 1))
        outputs = predict(x, unknown & (places >= first))
        drawn = draw(jax.random.fold_in(key, s), outputs.reshape(n * num_dims, -1), temperature).reshape(n, num_dims)
        return jnp.where(unknown & (places >= first) & (places < last), drawn, x), None

    return jax.lax.scan(step, start, jnp.arange(num_steps))[0]
