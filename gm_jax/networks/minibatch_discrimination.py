"""Minibatch discrimination: features that measure how close an example is to the rest of its batch.

Notation: f(x_i) [F] features of example i of n, T [F, K, D] learned, M_i = f(x_i) T [K, D].

    c_k(x_i, x_j) = exp(-|M_ik - M_jk|_1)                                              (1)
    o(x_i)_k      = sum_j c_k(x_i, x_j),    j = 1 ... n                                (2)

A discriminator that sees o(x_i) next to f(x_i) detects a collapsed generator, whose batches lie too close together.

Source: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, arXiv:1606.03498.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike

from gm_jax.types import Array


class MinibatchDiscrimination(nn.Module):
    """Appends the similarities (2) to the features: [B, F] -> [B, F + K].

    Real and generated examples pass through the discriminator in two calls. In one mixed batch the two kinds would be
    compared with each other, and the similarities would not measure the variety of either.

    The similarities depend on the size of the batch, so use one size throughout training. If the train step is mapped
    over devices, a device sees only its part of the batch unless `axis_name` names the mapped axis.

    Attributes:
        num_kernels: K.
        kernel_dim: D.
        include_self: whether the sum (2) has the term j = i, which is always 1; the paper includes it.
        axis_name: the mapped axis over whose devices examples are compared too; valid only inside such a map.
        dtype: precision of M; similarities and their sums are float32 at least.
    """

    num_kernels: int
    kernel_dim: int
    include_self: bool = True
    axis_name: str | None = None
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Maps features [B, F] to [B, F + K]."""
        shape = (features.shape[-1], self.num_kernels * self.kernel_dim)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        x, kernel = promote_dtype(features, kernel, dtype=self.dtype)
        projected = (x @ kernel).reshape(-1, self.num_kernels, self.kernel_dim)
        projected = projected.astype(jnp.promote_types(projected.dtype, jnp.float32))
        others = projected
        if self.axis_name is not None and not self.is_initializing():
            others = jax.lax.all_gather(projected, self.axis_name, tiled=True)
        distances = jnp.sum(jnp.abs(projected[:, None] - others[None]), axis=-1)  # [B, n, K]
        similarities = jnp.sum(jnp.exp(-distances), axis=1) - (0.0 if self.include_self else 1.0)
        return jnp.concatenate([features, similarities.astype(features.dtype)], axis=-1)
