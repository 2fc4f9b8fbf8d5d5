"""The exponential moving average of the parameters, which evaluation and sampling use."""

import jax
import jax.numpy as jnp

from gm_jax.types import Array, PyTree


def update(average: PyTree, params: PyTree, *, step: Array, decay: float) -> PyTree:
    """Moves the average towards the parameters: w average + (1 - w) params.

    The weight w = min(decay, (1 + step) / (10 + step)) warms up, so that the average forgets the initial parameters.

    Args:
        average: the average so far; a pytree of floating arrays.
        params: the parameters after the update, the same pytree.
        step: scalar, the number of steps before this one.
        decay: in [0, 1).
    Returns:
        The new average, in the dtypes of the old one.
    """
    weight = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: (weight * old + (1.0 - weight) * new).astype(old.dtype), average, params)
