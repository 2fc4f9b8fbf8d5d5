"""Glow: steps of actnorm, invertible 1x1 convolution and affine coupling, at several scales.

    scale l:  squeeze, K steps; half of the channels, part_l, is factored out, and the next scale takes the rest h_l
    prior:    part_l ~ N(mean(h_l), exp(log s(h_l))^2); the last one N(mean, exp(log s)^2) for each channel         (1)

The means and log-scales are learned and start at zero. The log-scales of couplings and conditional priors are bounded
by b tanh(r / b); the paper has no bound, and its code uses a sigmoid for the couplings' scales. The log-scales of the
last prior are parameters without a bound. Each Gaussian is implemented as the layer that standardises it,

    z_l = (part_l - mean) exp(-log s),    log p(part_l) = log N(z_l; 0, I) - sum log s                               (2)

so the whole model is a flow to one standard normal latent. `realnvp.MultiScale` combines the scales.

Source: Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018, arXiv:1807.03039.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.networks.conditioners import Conv, ConvConditioner
from gm_jax.networks.couplings import (
    ActNorm,
    Chain,
    Coupling,
    InvertibleConv,
    Repeated,
    Squeeze,
    affine,
)
from gm_jax.networks.realnvp import MultiScale, squeezed_shapes
from gm_jax.ops import bijectors, channel_map
from gm_jax.ops.channel_map import ChannelMap
from gm_jax.types import Array


class Glow(nn.Module):
    """Glow: x [B, H, W, C] <-> z [B, D].

    Attributes:
        event_shape: (H, W, C) of one image; both sides are multiples of 2^scales.
        scales: L.
        steps: K, the steps at each scale.
        features: channels of the networks in the couplings.
        bound: b, the bound of the log-scales of couplings and conditional priors.
        dtype: precision of the networks' computation.
        remat: stores only the inputs of steps for the backward pass, which computes the rest again.
    """

    event_shape: tuple[int, int, int]
    scales: int
    steps: int
    features: int
    bound: float = 2.0
    dtype: DTypeLike | None = None
    remat: bool = False

    def setup(self) -> None:
        shapes = squeezed_shapes(self.event_shape, self.scales)
        steps = [Repeated(self._step(channels), self.steps, self.remat) for _, _, channels in shapes]
        stages = [Chain([Squeeze(), each]) for each in steps]
        priors = [ConditionalPrior(channels // 2, self.bound) for _, _, channels in shapes[:-1]]
        stages[-1] = Chain([*stages[-1].layers, ChannelPrior(shapes[-1][-1])])
        self.multi_scale = MultiScale(stages, shapes, priors)

    def _step(self, channels: int) -> "GlowStep":
        conditioner = partial(ConvConditioner, features=self.features, dtype=self.dtype)
        coupling = Coupling(channels, affine(bound=self.bound), conditioner)
        return GlowStep([ActNorm(channels), InvertibleConv(channels), coupling])

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        return self.multi_scale.forward(x)

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        return self.multi_scale.inverse(z)


class GlowStep(Chain):
    """An actnorm, a 1x1 convolution and a coupling, in this order; the first two can be prepared as one map."""

    def prepare(self, *, inverse: bool) -> ChannelMap:
        """Joins actnorm and convolution, in this direction."""
        actnorm, convolution, _ = self.layers
        join = channel_map.channel_map_inverse if inverse else channel_map.channel_map
        shift, log_scale = actnorm.parameters()
        return join(shift, log_scale, convolution.factors())

    def forward(self, x: Array, prepared: ChannelMap | None = None) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        if prepared is None:
            return super().forward(x)
        z, log_det = channel_map.apply(x, prepared)
        z, more = self.layers[2].forward(z)
        return z, log_det + more

    def inverse(self, z: Array, prepared: ChannelMap | None = None) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        if prepared is None:
            return super().inverse(z)
        z, log_det = self.layers[2].inverse(z)
        x, more = channel_map.apply(z, prepared)
        return x, log_det + more


class ConditionalPrior(nn.Module):
    """Standardises a part [B, H, W, C] by moments that a convolution computes from the rest [B, H, W, C], eq. (2).

    Attributes:
        channels: C.
        bound: b, the bound of the log-scales.
    """

    channels: int
    bound: float

    def setup(self) -> None:
        self.moments = Conv(2 * self.channels, kernel_init=nn.initializers.zeros)

    def forward(self, part: Array, rest: Array) -> tuple[Array, Array]:
        """Maps the part to (z, log_det [B]), given the rest."""
        # part = mean + exp(log s) z is an affine coupling, so the map to z is its inverse.
        return bijectors.affine_coupling_inverse(part, *jnp.split(self.moments(rest), 2, axis=-1), bound=self.bound)

    def inverse(self, z: Array, rest: Array) -> tuple[Array, Array]:
        """Maps z to (the part, log_det [B] of the inverse), given the rest."""
        return bijectors.affine_coupling(z, *jnp.split(self.moments(rest), 2, axis=-1), bound=self.bound)


class ChannelPrior(nn.Module):
    """Standardises x [B, ..., C] by a learned mean and unbounded log-scale of each channel, eq. (2).

    Attributes:
        channels: C.
    """

    channels: int

    def setup(self) -> None:
        self.mean = self.param("mean", nn.initializers.zeros, (self.channels,))
        self.log_scale = self.param("log_scale", nn.initializers.zeros, (self.channels,))

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        return bijectors.actnorm_inverse(x, self.mean, self.log_scale)

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        return bijectors.actnorm(z, self.mean, self.log_scale)
