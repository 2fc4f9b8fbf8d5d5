"""The fully visible sigmoid belief network: a logistic regression of each dimension on all that come before it.

Notation: x [B, D] binary, order [D]: order[i] is the dimension at position i; "<" compares positions.

    log-odds of x_i = b_i + sum_{j < i} W_ji x_j                                                     (1)

All D regressions are one product with a kernel whose mask keeps j < i, the diagonal excluded.

Source: Neal, "Connectionist learning of belief networks", Artificial Intelligence 56, 1992; as an autoregressive model
in Frey, Hinton & Dayan, "Does the wake-sleep algorithm produce good density estimators?", NeurIPS 1995.
"""

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.types import Array


class FVSBN(nn.Module):
    """Equation (1): x [B, D] and an ordering -> logits [B, D], in the order of the data.

    `begin` and `step` give the same logits one after the other, in the order of generation.

    Attributes:
        num_dims: D.
        num_classes: of the labels that move the biases; None for a network without.
    """

    num_dims: int
    num_classes: int | None = None

    def setup(self):
        # Zeros, for D convex problems have nothing to break the symmetry of; a pixel that is always black in training
        # then says nothing where it is not.
        self.kernel = self.param("kernel", nn.initializers.zeros, (self.num_dims, self.num_dims))
        self.bias = self.param("bias", nn.initializers.zeros, (self.num_dims,))
        if self.num_classes is not None:
            self.label_bias = self.param("label_bias", nn.initializers.zeros, (self.num_classes, self.num_dims))

    def __call__(self, x: Array, order: Array, label: Array | None = None) -> Array:
        x = x.astype(self.kernel.dtype)
        position = jnp.argsort(order)
        mask = position[:, None] < position[None, :]
        return x @ (self.kernel * mask) + self._biases(x.shape[0], label)

    def begin(self, n: int, label: Array | None = None) -> Array:
        """The logits [n, D] while no dimension is known."""
        return self._biases(n, label)

    def step(self, logits: Array, i: Array, previous: Array, order: Array) -> tuple[Array, Array]:
        """Adds what position i - 1 says; returns (cache, the logits [n] of position i, to which nothing is missing).

        No mask is needed: what later steps add to this dimension is never read.
        """
        logits = logits + previous[:, None].astype(logits.dtype) * self.kernel[order[i - 1]][None]
        return logits, logits[:, order[i]]

    def _biases(self, n: int, label: Array | None) -> Array:
        if (label is None) != (self.num_classes is None):
            raise ValueError("a label is for a network with num_classes, and only for that.")
        bias = jnp.broadcast_to(self.bias, (n, self.num_dims))
        return bias if label is None else bias + self.label_bias[label]
