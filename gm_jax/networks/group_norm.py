"""Group normalisation (Wu & He, ECCV 2018, arXiv:1803.08494), in two stages.

    y = gamma (h - m) / sqrt(v + eps) + beta,    m, v over all places and the channels of a group           (1)

The sums go over the places of each channel first and over a group's channels then: the long sum has all channels side
by side, where one over (places, channels of a group) has a few, which vector units do badly. The variance is that of
centred values: the shorter E[h^2] - m^2 cancels in float32.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.types import Array

_EPSILON = 1e-5


class GroupNorm(nn.Module):
    """Equation (1): h [B, ..., C] -> the same shape, each example by itself.

    Attributes:
        groups: of neighbouring channels; it divides C.
        dtype: of the result; statistics are float32 at least.
    """

    groups: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, h: Array) -> Array:
        """Maps h [B, ..., C] to the same shape."""
        batch, channels = h.shape[0], h.shape[-1]
        if channels % self.groups:
            raise ValueError(f"{self.groups} groups do not divide {channels} channels.")
        gamma = self.param("scale", nn.initializers.ones, (channels,))
        beta = self.param("bias", nn.initializers.zeros, (channels,))
        dtype = h.dtype if self.dtype is None else self.dtype
        flat = h.astype(jnp.promote_types(h.dtype, jnp.float32)).reshape(batch, -1, channels)

        def over_group(of_channels: Array) -> Array:
            """The means [B, C] of channels, averaged over each group and given to all of its channels."""
            means = jnp.mean(of_channels.reshape(batch, self.groups, -1), axis=-1)
            return jnp.repeat(means, channels // self.groups, axis=-1)

        mean = over_group(jnp.mean(flat, axis=1))
        var = over_group(jnp.mean(jnp.square(flat - mean[:, None]), axis=1))
        factor = jax.lax.rsqrt(var + _EPSILON) * gamma[None]
        return (flat * factor[:, None] + (beta[None] - mean * factor)[:, None]).reshape(h.shape).astype(dtype)
