"""A transformer that predicts each masked dimension from all visible ones.

    h_i = e(x_i) if i is visible, e(mask token) if not, plus a vector for the position of i               (1)
    h  <- block(h), for each layer, without an attention mask: every position reads every position          (2)
    outputs_i = W LN(h_i) + b                                                                             (3)

Levels of masked dimensions are not read. The blocks and the vectors of positions are those of `transformer_trunk`.

The network is told no time: the visible levels say all that the conditionals depend on.

Sources: Devlin et al., "BERT", NAACL 2019, arXiv:1810.04805, section 3; without the time: Ou et al., "Your Absorbing
Discrete Diffusion Secretly Models the Conditional Distributions of Clean Data", 2024, arXiv:2406.03736.
"""

import jax.numpy as jnp

from gm_jax.networks.transformer_trunk import TransformerTrunk
from gm_jax.types import Array


class MaskedTransformer(TransformerTrunk):
    """The network (1)-(3): levels x [B, D] and is_masked [B, D] -> outputs [B, D, P].

    The last row of the embedding is the mask token. Attributes are those of the trunk.
    """

    layers: int = 4

    def __call__(self, x: Array, is_masked: Array) -> Array:
        """Maps levels x [B, D] and is_masked [B, D] bool to outputs [B, D, P].

        Raises:
            ValueError: x has another number of dimensions.
        """
        if x.shape[1:] != (self.num_dims,):
            raise ValueError(f"the network is made for {self.num_dims} dimensions, not {list(x.shape[1:])}.")
        return self.read(self.embedding(jnp.where(is_masked, self.levels, x)) + self.sum_of_positions())
