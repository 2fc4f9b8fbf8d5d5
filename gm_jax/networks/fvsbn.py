"""The fully visible sigmoid belief network: a logistic regression of each dimension on all earlier ones.

Notation: x [B, D] binary, order [D]: order[i] is the dimension at position i; "<" compares positions.

    log-odds of x_i = b_i + sum_{j < i} W_ji x_j                                                     (1)

All D regressions are one product with a masked kernel that keeps j < i and excludes the diagonal.

Source: Neal, "Connectionist learning of belief networks", Artificial Intelligence 56, 1992; as an autoregressive model
in Frey, Hinton & Dayan, "Does the wake-sleep algorithm produce good density estimators?", NeurIPS 1995.
"""

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.networks.label_bias import check_label
from gm_jax.types import Array


class FVSBN(nn.Module):
    """The FVSBN, eq. (1): x [B, D] and an ordering -> logits [B, D], in the order of the data.

    `begin` and `step` compute the same logits one at a time, in the order of generation.

    Attributes:
        num_dims: D.
        num_classes: number of classes of the labels, which shift the biases; None for a network without labels.
    """

    num_dims: int
    num_classes: int | None = None

    def setup(self) -> None:
        # Convex problems have no symmetry to break; from zero, pixels that are always black in training keep weight 0.
        self.kernel = self.param("kernel", nn.initializers.zeros, (self.num_dims, self.num_dims))
        self.bias = self.param("bias", nn.initializers.zeros, (self.num_dims,))
        if self.num_classes is not None:
            self.label_bias = self.param("label_bias", nn.initializers.zeros, (self.num_classes, self.num_dims))

    def __call__(self, x: Array, order: Array, label: Array | None = None) -> Array:
        """Maps x [B, D], an ordering [D] and labels [B] to logits [B, D]."""
        x = x.astype(self.kernel.dtype)
        position = jnp.argsort(order)
        mask = position[:, None] < position[None, :]
        return x @ (self.kernel * mask) + self._biases(x.shape[0], label)

    def begin(self, n: int, label: Array | None = None) -> Array:
        """Returns the cache before the first step: the logits [n, D] while no dimension is known."""
        return self._biases(n, label)

    def step(self, logits: Array, i: Array, previous: Array, order: Array) -> tuple[Array, Array]:
        """Adds the contribution of position i - 1; returns (cache, the complete logits [n] of position i).

        It needs no mask, because later contributions to this dimension are never read.
        """
        logits = logits + previous[:, None].astype(logits.dtype) * self.kernel[order[i - 1]][None]
        return logits, logits[:, order[i]]

    def _biases(self, n: int, label: Array | None) -> Array:
        check_label(label, self.num_classes)
        bias = jnp.broadcast_to(self.bias, (n, self.num_dims))
        return bias if label is None else bias + self.label_bias[label]
