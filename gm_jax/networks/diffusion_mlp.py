"""A residual perceptron for the diffusion of points and flat latents; every block receives the time.

    block:  h + dense(silu(dense(silu(h)) + dense(silu(e))))                                              (1)

where e is the sum of the embeddings of the time and the label. The last product of each block and the last layer of the
network start at zero.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.networks.dropout import Dropout
from gm_jax.networks.time_embedding import TimeEmbedding
from gm_jax.types import Array


class DiffusionMLP(nn.Module):
    """Predicts eps, x_0 or v, which have the shape of x_t, from x_t [B, ...] and t [B].

    Attributes:
        features: width of the hidden layers.
        blocks: number of residual blocks (1).
        num_classes: number of classes, including "no class" if there is one; None for a network without labels.
        dropout: dropout rate in training.
        dtype: precision of the computation; the output is float32 at least.
        outputs: how many outputs each number of x_t has, one block of the last axis after the other.
    """

    features: int
    blocks: int
    num_classes: int | None = None
    dropout: float = 0.0
    dtype: DTypeLike | None = None
    outputs: int = 1

    @nn.compact
    def __call__(self, x_t: Array, t: Array, label: Array | None = None, *, train: bool = False) -> Array:
        """Maps x_t [B, ...], t [B] and labels [B] to [B, ...], whose last axis is `outputs` times as long."""

        def dense(width: int, **settings: Any) -> nn.Dense:
            return nn.Dense(width, dtype=self.dtype, **settings)

        zeros, event_shape = nn.initializers.zeros, x_t.shape[1:]
        embedding = nn.silu(TimeEmbedding(64, self.features, self.num_classes, dtype=self.dtype, name="time")(t, label))
        h = dense(self.features, name="first")(x_t.reshape(x_t.shape[0], -1))
        for i in range(self.blocks):
            update = dense(self.features, name=f"inner_{i}")(nn.silu(h))
            update = nn.silu(update + dense(self.features, name=f"time_{i}")(embedding))
            update = Dropout(self.dropout, deterministic=not train)(update)
            h = h + dense(self.features, kernel_init=zeros, name=f"outer_{i}")(update)
        y = dense(self.outputs * math.prod(event_shape), kernel_init=zeros, name="last")(nn.silu(h))
        return y.reshape(*x_t.shape[:-1], -1).astype(jnp.promote_types(y.dtype, jnp.float32))
