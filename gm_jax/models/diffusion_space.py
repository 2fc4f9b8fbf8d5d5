"""The space in which data are diffused: the way there and back, and the decoder p(x_0 | x_1) that ends there."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from gm_jax.losses import diffusion as losses
from gm_jax.ops.levels import measure
from gm_jax.types import Array


class DataSpace(NamedTuple):
    """The way from what the data set ships to the x_0 that is diffused, and what p(x_0 | x_1) says of it.

    Attributes:
        prepare: x [B, ...] -> x_0 [B, ...] floating.
        to_data: x_0 -> x, as the data set ships it.
        decoder_nll: (x, x0_hat, log-variance, a scalar) -> -log p(x | x_1) [B] nats, in the measure of x.
        clip: the range of x_0, to which predictions are cut; None where it has none.
        measure: of `types.Likelihood`.
    """

    prepare: Callable[[Array], Array]
    to_data: Callable[[Array], Array]
    decoder_nll: Callable[[Array, Array, Array], Array]
    clip: tuple[float, float] | None
    measure: str


def pixels(*, levels: int) -> DataSpace:
    """Integer levels 0 ... levels - 1, spread over [-1, 1]; the decoder gives each its bin, the end bins open."""

    def to_data(x_0: Array) -> Array:
        return jnp.clip(jnp.round(0.5 * (x_0 + 1.0) * (levels - 1)), 0, levels - 1).astype(jnp.uint8)

    return DataSpace(
        prepare=lambda x: 2.0 * x.astype(jnp.float32) / (levels - 1) - 1.0,
        to_data=to_data,
        decoder_nll=lambda x, x0_hat, log_var: losses.discretized_normal_nll(
            x.astype(jnp.int32), x0_hat, log_var=log_var, levels=levels
        ),
        clip=(-1.0, 1.0),
        measure=measure(levels),
    )


def points() -> DataSpace:
    """Real data, as they are; the decoder is a normal density."""
    return DataSpace(
        prepare=lambda x: x,
        to_data=lambda x_0: x_0,
        decoder_nll=lambda x, x0_hat, log_var: losses.decoder_normal_nll(x, x0_hat, log_var=log_var),
        clip=None,
        measure="continuous",
    )
