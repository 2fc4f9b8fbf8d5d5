"""Self-attention over the places of an image (Vaswani et al., NeurIPS 2017, arXiv:1706.03762)."""

import flax.linen as nn
import numpy as np
from jax.typing import DTypeLike

from gm_jax.networks.normalization import GroupNorm
from gm_jax.ops.cpu import attention
from gm_jax.types import Array


class SelfAttention(nn.Module):
    """A residual block of self-attention, [B, H, W, C] -> the same shape; it starts as the identity.

    Keys have no bias: it would shift all scores of a query equally, and the softmax removes such a shift.

    Attributes:
        head_dim: channels D of each head; it divides C. None for a single head.
        groups: number of groups of the normalisation.
        rescale: divides the sum by sqrt(2).
        dtype: precision of the computation.
    """

    head_dim: int | None
    groups: int
    rescale: bool = False
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, H, W, C] to the same shape.

        Raises:
            ValueError: `head_dim` does not divide C.
        """
        batch, height, width, channels = x.shape
        head_dim = self.head_dim or channels
        if channels % head_dim:
            raise ValueError(f"{channels} channels cannot be split into heads of {head_dim}: choose a divisor.")
        h = GroupNorm(self.groups, dtype=self.dtype)(x).reshape(batch, height * width, channels)

        def project(name: str, *, use_bias: bool = True) -> Array:
            projected = nn.Dense(channels, use_bias=use_bias, dtype=self.dtype, name=name)(h)
            return projected.reshape(batch, height * width, channels // head_dim, head_dim)

        y = attention(project("query"), project("key", use_bias=False), project("value"))
        y = nn.Dense(channels, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="out")(y.reshape(h.shape))
        total = x + y.reshape(x.shape)
        return total * float(np.sqrt(0.5)) if self.rescale else total
