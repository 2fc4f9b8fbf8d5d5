"""A second network that starts as a copy of the first one, in the same run: its parameters are the difference.

    theta_2 = stop_gradient(theta_1) + delta,    delta = 0 at first                                       (1)

The first network is trained, then it stays and the second one learns from it.
"""

import jax
import jax.numpy as jnp

from gm_jax.types import Params


def difference(params: Params, first: str, second: str) -> Params:
    """Adds delta of (1), zeros, to the parameters of the player `first`, as the player `second`."""
    return {**params, second: jax.tree.map(jnp.zeros_like, params[first])}


def second_params(params: Params, first: str, second: str) -> Params:
    """Returns (1) as parameters of the player `first`."""
    return {first: jax.tree.map(lambda one, delta: jax.lax.stop_gradient(one) + delta, params[first], params[second])}
