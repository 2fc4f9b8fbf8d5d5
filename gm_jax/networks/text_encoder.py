"""A transformer that reads captions: the context of a denoiser, trained with it.

    h_0 = e(start),    h_i = e(x_i) + t(i),    i = 1 ... L                                                  (1)
    h  <- block(h, mask),    mask[i, j] = (x_j is a word, or j = 0),    for each layer                      (2)
    context_i = W LN(h_i) + b                                                                               (3)

Every position reads the start token and all words, and none reads the padding, token 0. The null caption is L tokens of
padding, so that its context is that of the start token alone. The layers are those of `transformer_trunk`.

A denoiser adds a summary of the caption to its embedding of the time: the sum over the start token and the n words,

    summary = (context_0 + ... + context_n) / sqrt(n + 1)                                                   (4)

or context_0 alone. Entries of e and t start with variance 1 and the layers as the identity, so that (4) starts as a sum
over the words, from which a denoiser learns what a word changes long before the layers have learned to pass it on.

Sources: a text encoder that is trained with the denoiser: Rombach et al., "High-Resolution Image Synthesis with Latent
    Diffusion Models", CVPR 2022, arXiv:2112.10752, section 4.3.1. A summary of the caption beside the time: Saharia et
    al., "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding" (Imagen), NeurIPS 2022,
    arXiv:2205.11487, section 2.5, where it is a pooled embedding; the sum (4) is not the paper's.
"""

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.networks.transformer_trunk import TransformerTrunk
from gm_jax.types import Array

PADDING = 0


class TextEncoder(TransformerTrunk):
    """The network (1)-(3): tokens [B, L] -> the context [B, L + 1, P] and which of it counts, [B, L + 1].

    The event shape is (L,), the levels are the words of the vocabulary with the padding, and the last row of the
    embedding is the start token.

    Attributes:
        sums: whether the summary is (4), or context_0; the others are those of the trunk.
    """

    embedding_init: nn.initializers.Initializer = nn.initializers.normal(1.0)
    starts_as_identity: bool = True
    sums: bool = True

    def __call__(self, tokens: Array | None) -> tuple[Array, Array]:
        """Maps tokens [B, L] int32 to the context [B, L + 1, P] and its mask [B, L + 1] bool; position 0 is the start.

        Raises:
            ValueError: the captions are missing, or their length is not L.
        """
        if tokens is None:
            raise ValueError("the network reads captions but got none: pass tokens.")
        if tokens.shape[1:] != self.event_shape:
            raise ValueError(f"the text encoder reads {self.event_shape[0]} tokens, not {list(tokens.shape[1:])}.")
        batch = tokens.shape[0]
        start = jnp.broadcast_to(self.embedding(jnp.int32(self.levels)), (batch, 1, self.features))
        h = jnp.concatenate([start, self.embedding(tokens) + self.sum_of_positions()], axis=1)
        counts = jnp.concatenate([jnp.ones((batch, 1), bool), tokens != PADDING], axis=1)
        mask = jnp.broadcast_to(counts[:, None], (batch, h.shape[1], h.shape[1]))
        return self.read(h, mask), counts

    def summary(self, context: Array, counts: Array) -> Array:
        """Maps the context [B, L + 1, P] and its mask [B, L + 1] to a vector of the caption, [B, P]."""
        if not self.sums:
            return context[:, 0]
        counted = counts.astype(context.dtype)
        return jnp.einsum("bmp,bm->bp", context, counted) / jnp.sqrt(jnp.sum(counted, axis=1, keepdims=True))
