"""The space in which data are diffused: pixels on [-1, 1] or points, and the decoder p(x_0 | x_1) of each."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from gm_jax.losses import diffusion as losses
from gm_jax.ops.levels import from_symmetric, measure, to_symmetric
from gm_jax.types import Array


class DiffusionSpace(NamedTuple):
    """The way from the data as shipped to the x_0 that is diffused and back, and the decoder p(x_0 | x_1).

    Attributes:
        prepare: x [B, ...] -> x_0 [B, ...] floating.
        to_data: x_0 -> x.
        decoder_nll: (x, x0_hat, scalar log-variance) -> -log p(x | x_1) [B] nats, in the measure of x.
        clip: the range of x_0, to which predictions are clipped; None without a range.
        measure: the base measure of x; see `types.Likelihood`.
        side: the range of one dimension in the space of a density, see `ops.levels.space_setting`; None for levels.
    """

    prepare: Callable[[Array], Array]
    to_data: Callable[[Array], Array]
    decoder_nll: Callable[[Array, Array, Array], Array]
    clip: tuple[float, float] | None
    measure: str
    side: str | None = None


def pixels(*, levels: int) -> DiffusionSpace:
    """Makes the space of integer levels, spread over [-1, 1].

    Args:
        levels: L; data are 0 ... L - 1.
    Returns:
        A space whose decoder gives each level the mass of its bin, the end bins open.
    """
    return DiffusionSpace(
        prepare=lambda x: to_symmetric(x, levels=levels),
        to_data=lambda x_0: from_symmetric(x_0, levels=levels),
        decoder_nll=lambda x, x0_hat, log_var: losses.discretized_normal_nll(
            x.astype(jnp.int32), x0_hat, log_var=log_var, levels=levels
        ),
        clip=(-1.0, 1.0),
        measure=measure(levels),
    )


def points() -> DiffusionSpace:
    """Makes the space of real data, which stay unchanged; the decoder is a normal density."""
    return DiffusionSpace(
        prepare=lambda x: x,
        to_data=lambda x_0: x_0,
        decoder_nll=lambda x, x0_hat, log_var: losses.decoder_normal_nll(x, x0_hat, log_var=log_var),
        clip=None,
        measure="continuous",
        side="R",
    )
