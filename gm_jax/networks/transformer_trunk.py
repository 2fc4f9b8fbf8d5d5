"""The trunk of a transformer of tokens: what the causal, the masked and the text transformer share.

    h_i = e(x_i) + sum_a t_a(i)                                                                             (1)
    h  <- block(h, mask), for each layer                                                                    (2)
    outputs_i = W LN(h_i) + b                                                                               (3)

with e an embedding of levels and of one token more, t_a(i) a learned vector for the coordinate of position i on axis a
(row, column and colour of an image; place of a sequence), and the blocks of `attention`.

Sources: Radford et al., "Language Models are Unsupervised Multitask Learners" (GPT-2), 2019. A learned vector for each
    axis: Child et al., "Generating Long Sequences with Sparse Transformers", 2019, arXiv:1904.10509, section 5.3.
"""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gm_jax.networks.attention import TransformerBlock
from gm_jax.networks.dropout import KeyedDropout
from gm_jax.types import Array


def position_tables(
    event_shape: tuple[int, ...],
    features: int,
    dtype: DTypeLike | None,
    init: nn.initializers.Initializer = nn.linear.default_embed_init,
) -> dict[int, nn.Embed]:
    """Returns the tables of t_a in (1), by axis; an axis of one pixel says nothing and has none."""
    sizes = {axis: size for axis, size in enumerate(event_shape) if size > 1}
    return {axis: nn.Embed(size, features, dtype, embedding_init=init) for axis, size in sizes.items()}


def sum_of_positions(
    tables: Mapping[int, nn.Embed], event_shape: tuple[int, ...], features: int, dtype: DTypeLike | None
) -> Array:
    """Computes sum_a t_a(i) of every position i: [1, D, F]."""
    total = jnp.zeros((1, *event_shape, features), dtype or jnp.result_type(float))
    for axis, table in tables.items():
        along = [1] * (len(event_shape) + 1) + [features]
        along[axis + 1] = event_shape[axis]
        total = total + table(jnp.arange(event_shape[axis])).reshape(along)
    return total.reshape(1, -1, features)


class TransformerTrunk(nn.Module):
    """The layers of (1)-(3); subclasses say what is embedded and which positions each position reads.

    Attributes:
        event_shape: shape of one example, e.g. (28, 28, 1) or (256,); D is the product.
        levels: L; the embedding has L + 1 rows, and its last one is a token of the subclass.
        outputs_per_dim: P.
        features: F.
        heads: heads of each layer; they divide F.
        layers: number of blocks.
        dropout: dropout rate of h in (1) and of each block's updates in training.
        dtype: precision of the computation.
        embedding_init: initialiser of the tables e and t_a.
        starts_as_identity: whether the blocks start as the identity.
    """

    event_shape: tuple[int, ...]
    levels: int
    outputs_per_dim: int
    features: int = 64
    heads: int = 4
    layers: int = 3
    dropout: float = 0.0
    dtype: DTypeLike | None = None
    embedding_init: nn.initializers.Initializer = nn.linear.default_embed_init
    starts_as_identity: bool = False

    def setup(self) -> None:
        self.embedding = nn.Embed(self.levels + 1, self.features, self.dtype, embedding_init=self.embedding_init)
        self.positions = position_tables(self.event_shape, self.features, self.dtype, self.embedding_init)
        self.drop = KeyedDropout(self.dropout)
        settings = (self.features, self.heads, self.layers, self.dropout, self.dtype, self.starts_as_identity)
        self.blocks = [TransformerBlock(*settings) for _ in range(self.layers)]
        self.norm = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=self.dtype)
        self.readout = nn.Dense(self.outputs_per_dim, dtype=self.dtype)

    @property
    def num_dims(self) -> int:
        """D."""
        return math.prod(self.event_shape)

    def sum_of_positions(self) -> Array:
        """Computes sum_a t_a(i) of every position i: [1, D, F]."""
        return sum_of_positions(self.positions, self.event_shape, self.features, self.dtype)

    def read(self, h: Array, mask: Array | np.ndarray | None = None) -> Array:
        """Maps embedded tokens h [B, N, F] to outputs [B, N, P] by (2) and (3); a mask is that of `attention`."""
        h = self.drop(h)
        for block in self.blocks:
            h = block(h, mask)
        return self.readout(self.norm(h))
