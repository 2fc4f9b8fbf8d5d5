"""The log of the error that a denoiser is expected to make, given the time and the caption.

    u = W silu(W' silu(h) + b') + b,    h = A e(t) + a + (v(x_1) + ... + v(x_n)) / sqrt(n + 1)              (1)

for the n words x_i of a caption, e(t) the sines and cosines of `time_embedding`, and W = 0 at first. Errors are divided
by exp(u), `losses.uncertainty_weighted_loss`: what a caption leaves free makes large errors, which nothing can mend and
which would hide what the words of other captions change. The 1 in the root lets a caption of no words pass.

Source: Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models" (EDM2), CVPR 2024,
    arXiv:2312.02696, where u is linear in features of the noise level alone.
"""

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.networks.text_encoder import PADDING
from gm_jax.networks.time_embedding import sinusoids
from gm_jax.types import Array


class LogError(nn.Module):
    """u [B] of (1), for times t [B] and captions [B, L].

    Attributes:
        words: of the vocabulary, with the padding.
        features: width of both layers, even.
    """

    words: int
    features: int = 64

    @nn.compact
    def __call__(self, t: Array, caption: Array) -> Array:
        """Maps t [B] and captions [B, L] int32 to [B]."""
        counts = (caption != PADDING)[..., None]
        vectors = nn.Embed(self.words, self.features, embedding_init=nn.initializers.normal(1.0))(caption)
        caption_sum = jnp.sum(vectors * counts, axis=1) / jnp.sqrt(1.0 + jnp.sum(counts, axis=1))
        h = nn.Dense(self.features)(sinusoids(t, self.features)) + caption_sum
        h = nn.Dense(self.features)(nn.silu(h))
        return nn.Dense(1, kernel_init=nn.initializers.zeros)(nn.silu(h))[:, 0]
