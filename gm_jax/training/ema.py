"""The exponential moving average of the parameters, which evaluation and sampling use."""

import jax
import jax.numpy as jnp

from gm_jax.types import Array, PyTree


def update(average: PyTree, params: PyTree, *, num_updates: Array, decay: float) -> PyTree:
    """Moves the average towards the parameters: w average + (1 - w) params.

    The weight w = min(decay, (1 + n) / (10 + n)) of the (n + 1)-th update warms up, so that the average forgets the
    initial parameters. A player that begins late in a run therefore starts at n = 0.

    Args:
        average: the average so far; a pytree of floating arrays.
        params: the parameters after the update, the same pytree.
        num_updates: scalar n, how many updates the parameters had before this one.
        decay: in [0, 1).
    Returns:
        The new average, in the dtypes of the old one.
    """
    weight = jnp.minimum(decay, (1.0 + num_updates) / (10.0 + num_updates))
    return jax.tree.map(lambda old, new: (weight * old + (1.0 - weight) * new).astype(old.dtype), average, params)
