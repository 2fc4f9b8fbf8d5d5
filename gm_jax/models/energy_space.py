"""The space of an energy: points as they are, or images with noise that turns levels into a density near [-1, 1]."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax

from gm_jax.ops import levels as levels_lib
from gm_jax.ops.dequantization import quantize, uniform_dequantize
from gm_jax.types import Array, Key


class EnergySpace(NamedTuple):
    """The way from the data as shipped to the h whose energy is learned, and back.

    Attributes:
        prepare: (key, x [B, ...]) -> h [B, ...] floating.
        to_data: h -> x.
        log_det: shape of one example -> log |dh/dx| in the measure of the data, nats.
        measure: the base measure of the data, as in `types.Likelihood`.
        side: the range of one dimension of a density, see `ops.levels.space_setting`; None for levels.
        noisy_side: the same of the data with their noise, whose log-density in level units is that in `measure`. A mean
            log-density with noise is below log p of the levels, so that an upper bound of the one is none of the other.
    """

    prepare: Callable[[Key, Array], Array]
    to_data: Callable[[Array], Array]
    log_det: Callable[[tuple[int, ...]], float]
    measure: str
    side: str | None
    noisy_side: str


def points() -> EnergySpace:
    """Makes the space of real data, which stay unchanged."""
    return EnergySpace(lambda key, x: x, lambda h: h, lambda shape: 0.0, "continuous", "R", "R")


def images(*, levels: int) -> EnergySpace:
    """Makes the space of integer levels, each spread evenly over its part of [-1, 1].

    With this noise, the mean log-density in the measure of the levels is a lower bound of log p (Theis et al. 2016).

    Args:
        levels: L; data are 0 ... L - 1.
    """

    def prepare(key: Key, x: Array) -> Array:
        y, _ = uniform_dequantize(x, jax.random.uniform(key, x.shape), levels=levels)
        return levels_lib.unit_to_symmetric(y)

    return EnergySpace(
        prepare=prepare,
        to_data=lambda h: quantize(levels_lib.symmetric_to_unit(h), levels=levels).astype("uint8"),
        log_det=lambda shape: math.prod(shape) * math.log(2.0 / levels),
        measure=levels_lib.measure(levels),
        side=None,
        noisy_side=f"[0,{levels}]",
    )
