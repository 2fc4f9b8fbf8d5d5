"""The exponential moving average of the parameters, which evaluation and sampling use.

A weight function computes the weight w of the old average from n, how many updates the parameters had before this one.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.types import Array, PyTree

WeightFn = Callable[[Array], Array]  # n, a scalar -> w, a scalar in [0, 1)

_RAMP = 0.05  # the longest half-life of `by_ramp`, as a share of the updates so far


def by_ratio(decay: float) -> WeightFn:
    """Returns w = min(decay, (1 + n) / (10 + n)), with which the average forgets the initial parameters."""
    _check(decay)
    return lambda n: jnp.minimum(decay, (1.0 + n) / (10.0 + n))


def by_ramp(decay: float) -> WeightFn:
    """Returns the weight whose half-life is that of `decay`, or a twentieth of the n updates so far if that is shorter.

    The first update copies the parameters.

    Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022,
    arXiv:2206.00364: their code's ema_rampup_ratio.
    """
    _check(decay)
    halflife = math.log(0.5) / math.log(decay) if decay else 0.0
    return lambda n: jnp.exp2(-1.0 / jnp.maximum(jnp.minimum(halflife, _RAMP * n), 1e-8))


def constant(decay: float) -> WeightFn:
    """Returns w = decay, with which the average starts at the initial parameters and forgets them slowly."""
    _check(decay)
    return lambda n: jnp.full((), decay)


def decay_of_halflife(halflife: float, *, images_per_update: int) -> float:
    """Returns the decay with which parameters count half as much after some images.

    Args:
        halflife: in images, more than 0.
        images_per_update: examples whose gradient makes one update.
    """
    return 0.5 ** (images_per_update / halflife)


def update(average: PyTree, params: PyTree, *, weight: Array) -> PyTree:
    """Moves the average towards the parameters: w average + (1 - w) params.

    Args:
        average: the average so far; a pytree of floating arrays.
        params: the parameters after the update, the same pytree.
        weight: w, a scalar.
    Returns:
        The new average, in the dtypes of the old one.
    """
    return jax.tree.map(lambda old, new: (weight * old + (1.0 - weight) * new).astype(old.dtype), average, params)


def _check(decay: float) -> None:
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"ema_decay must lie in [0, 1), got {decay}")
