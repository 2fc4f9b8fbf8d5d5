"""Glow: steps of actnorm, invertible 1x1 convolution and affine coupling, in several scales.

    scale l:  squeeze, K steps; half of the channels, part_l, is factored out, and the next scale takes the rest h_l
    prior:    part_l ~ N(mean(h_l), exp(log s(h_l))^2),  the last one N(mean, exp(log s)^2) for each channel        (1)

The means and log-scales are learned, and zero at first. The log-scales of couplings and of conditional priors are
bounded, b tanh(r / b), where the paper bounds none and its code takes a sigmoid for the couplings' scales; those of the
last prior, which no network makes, are free. Each Gaussian is written as what standardises it,

    z_l = (part_l - mean) exp(-log s),    log p(part_l) = log N(z_l; 0, I) - sum log s                               (2)

which makes of the whole a flow to one standard normal latent. `realnvp.MultiScale` puts the scales together.

Source: Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018, arXiv:1807.03039.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.networks.couplings import (
    ActNorm,
    Chain,
    Conv,
    ConvConditioner,
    Coupling,
    InvertibleConv,
    Repeated,
    Squeeze,
    affine,
)
from gm_jax.networks.realnvp import MultiScale, squeezed_shapes
from gm_jax.ops import bijectors
from gm_jax.types import Array


class Glow(nn.Module):
    """x [B, H, W, C] <-> z [B, D].

    Attributes:
        event_shape: (H, W, C) of one image; the sides are multiples of 2^scales.
        scales: L.
        steps: K, at each scale.
        features: channels of the networks in the couplings.
        bound: of the log-scales of the couplings and the conditional priors.
        dtype: precision of the networks' computation.
    """

    event_shape: tuple[int, int, int]
    scales: int
    steps: int
    features: int
    bound: float = 2.0
    dtype: DTypeLike | None = None

    def setup(self):
        shapes = squeezed_shapes(self.event_shape, self.scales)
        stages = [Chain([Squeeze(), Repeated(self._step(channels), self.steps)]) for _, _, channels in shapes]
        priors = [ConditionalPrior(channels // 2, self.bound) for _, _, channels in shapes[:-1]]
        stages[-1] = Chain([*stages[-1].layers, ChannelPrior(shapes[-1][-1])])
        self.multi_scale = MultiScale(stages, shapes, priors)

    def _step(self, channels: int) -> Chain:
        conditioner = partial(ConvConditioner, features=self.features, dtype=self.dtype)
        coupling = Coupling(channels, affine(bound=self.bound), conditioner)
        return Chain([ActNorm(channels), InvertibleConv(channels), coupling])

    def forward(self, x: Array) -> tuple[Array, Array]:
        return self.multi_scale.forward(x)

    def inverse(self, z: Array) -> tuple[Array, Array]:
        return self.multi_scale.inverse(z)


class ConditionalPrior(nn.Module):
    """Standardises a part [B, H, W, C] by moments that a convolution makes of the rest [B, H, W, C], eq. (2).

    Attributes:
        channels: C.
        bound: of the log-scales.
    """

    channels: int
    bound: float

    def setup(self):
        self.moments = Conv(2 * self.channels, kernel_init=nn.initializers.zeros)

    def forward(self, part: Array, rest: Array) -> tuple[Array, Array]:
        # The way from z to the part is mean + exp(log s) z, so the way to z is that coupling's inverse.
        return bijectors.affine_coupling_inverse(part, *jnp.split(self.moments(rest), 2, axis=-1), bound=self.bound)

    def inverse(self, z: Array, rest: Array) -> tuple[Array, Array]:
        return bijectors.affine_coupling(z, *jnp.split(self.moments(rest), 2, axis=-1), bound=self.bound)


class ChannelPrior(nn.Module):
    """Standardises x [B, ..., C] by moments of each channel, eq. (2), its log-scales not bounded.

    Attributes:
        channels: C.
    """

    channels: int

    def setup(self):
        self.mean = self.param("mean", nn.initializers.zeros, (self.channels,))
        self.log_scale = self.param("log_scale", nn.initializers.zeros, (self.channels,))

    def forward(self, x: Array) -> tuple[Array, Array]:
        return bijectors.actnorm_inverse(x, self.mean, self.log_scale)

    def inverse(self, z: Array) -> tuple[Array, Array]:
        return bijectors.actnorm(z, self.mean, self.log_scale)
