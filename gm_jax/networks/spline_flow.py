"""Neural spline flows: couplings by monotone rational-quadratic splines, for points and tables.

    one block:  actnorm; an invertible linear map if D > 2; a pair of couplings, one for each half given the other

The actnorm gives its input mean 0 and variance 1 (for images, one scale for all pixels), which suits the splines'
interval [-b, b]; outside it the couplings are the identity. Two dimensions need no linear map, because each coupling
already sees the whole other half.

Source: Durkan, Bekasov, Murray & Papamakarios, "Neural Spline Flows", NeurIPS 2019, arXiv:1906.04032; its linear maps
by LU factors are Glow's 1x1 convolutions of an image of one pixel.
"""

import math
from functools import partial

import flax.linen as nn
from jax.typing import DTypeLike

from gm_jax.networks.conditioners import Activation, MLPConditioner
from gm_jax.networks.couplings import (
    ActNorm,
    Chain,
    Coupling,
    InvertibleConv,
    Repeated,
    rational_quadratic,
)
from gm_jax.types import Array


class SplineFlow(nn.Module):
    """A neural spline flow: x [B, *event_shape] <-> z [B, D].

    Attributes:
        event_shape: shape of one example; its size D is at least 2.
        hidden: widths of each coupling's perceptron.
        blocks: number of blocks.
        num_bins: K, the bins of each spline.
        bound: b, half the width of the splines' interval.
        activation: elementwise function after each hidden layer.
        dtype: precision of the perceptrons' computation.
    """

    event_shape: tuple[int, ...]
    hidden: tuple[int, ...]
    blocks: int
    num_bins: int = 8
    bound: float = 3.0
    activation: Activation = nn.relu
    dtype: DTypeLike | None = None

    def setup(self) -> None:
        dim = math.prod(self.event_shape)
        conditioner = partial(MLPConditioner, hidden=self.hidden, activation=self.activation, dtype=self.dtype)
        spline = rational_quadratic(num_bins=self.num_bins, bound=self.bound)
        pair = [Coupling(dim, spline, conditioner, flipped=flipped) for flipped in (False, True)]
        mixing = [InvertibleConv(dim)] if dim > 2 else []
        # Pixels share one unit; the columns of a table do not.
        actnorm = ActNorm(dim, shared_scale=len(self.event_shape) > 1)
        self.layers = Repeated(Chain([actnorm, *mixing, *pair]), self.blocks)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        return self.layers.forward(x.reshape(x.shape[0], -1))

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        x, log_det = self.layers.inverse(z)
        return x.reshape(-1, *self.event_shape), log_det
