"""The bias that a class label adds: one vector for each class, equal at every place."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.types import Array


class LabelBias(nn.Module):
    """b(y) [B, features] for labels y [B]; None for a network without labels.

    The vectors start at zero, so a network starts as if it had no labels.

    Attributes:
        num_classes: number of classes; None for a network without labels.
        features: length of a vector.
        dtype: precision of the computation.
    """

    num_classes: int | None
    features: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, label: Array | None) -> Array | None:
        """Maps labels [B] to [B, features], and None to None.

        Raises:
            ValueError: a label is given without `num_classes`, or is missing.
        """
        check_label(label, self.num_classes)
        if label is None or self.num_classes is None:
            return None
        return nn.Embed(self.num_classes, self.features, self.dtype, embedding_init=nn.initializers.zeros)(label)


def check_label(label: Array | None, num_classes: int | None) -> None:
    """Raises a ValueError if a label is given without `num_classes`, or is missing."""
    if label is None and num_classes is not None:
        raise ValueError(f"the network has num_classes={num_classes} but got no label: pass one.")
    if label is not None and num_classes is None:
        raise ValueError("the network has no classes but got a label: set num_classes, or pass no label.")


def add_bias(x: Array, bias: Array | None) -> Array:
    """Adds bias [B, F] to every place of x [B, ..., F]; None adds nothing."""
    return x if bias is None else x + jnp.expand_dims(bias, tuple(range(1, x.ndim - 1)))


def halves(bias: Array | None) -> tuple[Array | None, Array | None]:
    """Splits biases [B, 2F] into those of two layers, [B, F] each; None becomes (None, None)."""
    if bias is None:
        return None, None
    first, second = jnp.split(bias, 2, axis=-1)
    return first, second
