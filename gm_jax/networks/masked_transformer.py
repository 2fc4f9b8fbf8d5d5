"""A transformer that predicts each masked dimension from all visible ones.

    h_i = e(x_i) if i is visible, e(mask token) if not, plus a vector for the position of i               (1)
    h  <- block(h), for each layer, without an attention mask: every position reads every position          (2)
    outputs_i = W LN(h_i) + b                                                                             (3)

Levels of masked dimensions are not read. The blocks and the vectors of positions are those of `networks.transformer`.

The network is told no time: the visible levels say all that the conditionals depend on.

Sources: Devlin et al., "BERT", NAACL 2019, arXiv:1810.04805, section 3; without the time: Ou et al., "Your Absorbing
Discrete Diffusion Secretly Models the Conditional Distributions of Clean Data", 2024, arXiv:2406.03736.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.networks.attention import TransformerBlock
from gm_jax.networks.dropout import Dropout
from gm_jax.networks.transformer import position_tables, sum_of_positions
from gm_jax.types import Array


class MaskedTransformer(nn.Module):
    """The network (1)-(3): levels x [B, D] and is_masked [B, D] -> outputs [B, D, P].

    Attributes:
        event_shape: shape of one example; D is the product.
        levels: L.
        outputs_per_dim: P.
        features: width F.
        heads: heads of each layer; they divide F.
        layers: number of blocks.
        dropout: dropout rate of h in (1) and of each block's updates in training.
        dtype: precision of the computation.
    """

    event_shape: tuple[int, ...]
    levels: int
    outputs_per_dim: int
    features: int = 64
    heads: int = 4
    layers: int = 4
    dropout: float = 0.0
    dtype: DTypeLike | None = None

    def setup(self) -> None:
        # The last row is the mask token.
        self.embedding = nn.Embed(self.levels + 1, self.features, self.dtype)
        self.positions = position_tables(self.event_shape, self.features, self.dtype)
        self.drop = Dropout(self.dropout)
        settings = (self.features, self.heads, self.layers, self.dropout, self.dtype)
        self.blocks = [TransformerBlock(*settings) for _ in range(self.layers)]
        self.norm = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=self.dtype)
        self.readout = nn.Dense(self.outputs_per_dim, dtype=self.dtype)

    def __call__(self, x: Array, is_masked: Array) -> Array:
        """Maps levels x [B, D] and is_masked [B, D] bool to outputs [B, D, P].

        Raises:
            ValueError: x has another number of dimensions.
        """
        num_dims = math.prod(self.event_shape)
        if x.shape[1:] != (num_dims,):
            raise ValueError(f"the network is made for {num_dims} dimensions, not {list(x.shape[1:])}.")
        h = self.embedding(jnp.where(is_masked, self.levels, x))
        h = self.drop(h + sum_of_positions(self.positions, self.event_shape, self.features, self.dtype))
        for block in self.blocks:
            h = block(h)
        return self.readout(self.norm(h))
