"""What a class label tells a network: a vector for each class, the same at every place."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.types import Array


class LabelBias(nn.Module):
    """b(y) [B, features] of labels y [B]; None of no labels, for a network without.

    The vectors start at zero: the network starts as one without labels.

    Attributes:
        num_classes: of the labels; None for a network without.
        features: length of a vector.
        dtype: precision of the computation.
    """

    num_classes: int | None
    features: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, label: Array | None) -> Array | None:
        if (label is None) != (self.num_classes is None):
            raise ValueError("a label is for a network with num_classes, and only for that.")
        if label is None:
            return None
        return nn.Embed(self.num_classes, self.features, self.dtype, embedding_init=nn.initializers.zeros)(label)


def add_bias(x: Array, bias: Array | None) -> Array:
    """Adds bias [B, F] to every place of x [B, ..., F]; None adds nothing."""
    return x if bias is None else x + jnp.expand_dims(bias, tuple(range(1, x.ndim - 1)))


def halves(bias: Array | None) -> tuple[Array | None, Array | None]:
    """Splits the biases [B, 2F] of two places where one is added; None is None twice."""
    return (None, None) if bias is None else tuple(jnp.split(bias, 2, axis=-1))
