"""Embeddings of the time t of a diffusion process and of a class label.

    e(t) = (sin(t w_0), ..., sin(t w_(D/2-1)), cos(t w_0), ..., cos(t w_(D/2-1))),    w_i = 10000^(-2 i / D)   (1)

is the positional encoding of Vaswani et al. (NeurIPS 2017, arXiv:1706.03762) with all sines first. DDPM embeds its
times in the same way.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gm_jax.networks.label_bias import LabelBias, add_bias
from gm_jax.types import Array


class TimeEmbedding(nn.Module):
    """Embeds times t [B] and, in a network with labels, labels [B] as vectors [B, features].

    K times of an example, t [B, K], are embedded together. What was done to an example to augment it, A numbers, is
    added to (1) by a matrix, which maps the zeros of an example as it is to zeros.

    Attributes:
        frequencies: D of (1), even.
        features: width of the perceptron with one hidden layer that follows (1).
        num_classes: number of classes, including "no class" if there is one; None for a network without labels.
        dtype: precision of the perceptron.
        augmented: A; None for a network that is not told of augmentations.
    """

    frequencies: int
    features: int
    num_classes: int | None = None
    dtype: DTypeLike | None = None
    augmented: int | None = None

    @nn.compact
    def __call__(self, t: Array, label: Array | None = None, changes: Array | None = None) -> Array:
        """Maps t [B], or [B, K], labels [B] and changes [B, A], None for none, to [B, features]."""
        waves = sinusoids(t.reshape(-1), self.frequencies).reshape(t.shape[0], -1)
        if self.augmented is not None:
            told = jnp.zeros((t.shape[0], self.augmented)) if changes is None else changes
            waves = waves + nn.Dense(waves.shape[1], use_bias=False, dtype=self.dtype, name="augmentation")(told)
        h = nn.silu(nn.Dense(self.features, dtype=self.dtype)(waves))
        h = nn.Dense(self.features, dtype=self.dtype)(h)
        return add_bias(h, LabelBias(self.num_classes, self.features, dtype=self.dtype)(label))


def sinusoids(t: Array, dim: int) -> Array:
    """Computes equation (1).

    Args:
        t: [B] times, of any numeric type.
        dim: D, even.
    Returns:
        [B, D] float32, or float64 if t is float64.
    Raises:
        ValueError: D is odd.
    """
    if dim % 2:
        raise ValueError(f"the dimension is {dim}, but needs to be even: there are as many sines as cosines.")
    frequencies = np.exp(-np.log(10_000.0) * np.arange(dim // 2) / (dim // 2))
    dtype = jnp.promote_types(t.dtype, jnp.float32) if jnp.issubdtype(t.dtype, jnp.floating) else jnp.float32
    angles = t.astype(dtype)[:, None] * jnp.asarray(frequencies, dtype)[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
