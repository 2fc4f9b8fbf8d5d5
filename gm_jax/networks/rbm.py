"""The restricted Boltzmann machine: binary visible and hidden units, with connections between the two sides only.

    E(v, h) = -a.v - b.h - v.W h,    p(v, h) = exp(-E(v, h)) / Z

Given one side, the units of the other side are independent, and their log-odds are one product with W.

Source: Smolensky, "Information processing in dynamical systems", 1986; Hinton, "Training Products of Experts by
Minimizing Contrastive Divergence", Neural Computation 14, 2002.
"""

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.types import Array


class RBM(nn.Module):
    """The biases a [V] and b [H] and the weights W [V, H].

    Attributes:
        num_visible: V.
        num_hidden: H.
    """

    num_visible: int
    num_hidden: int

    def setup(self) -> None:
        # Hinton, "A Practical Guide to Training Restricted Boltzmann Machines", 2010, section 8.
        self.kernel = self.param("kernel", nn.initializers.normal(0.01), (self.num_visible, self.num_hidden))
        self.visible_bias = self.param("visible_bias", nn.initializers.zeros, (self.num_visible,))
        self.hidden_bias = self.param("hidden_bias", nn.initializers.zeros, (self.num_hidden,))

    def __call__(self, v: Array) -> tuple[Array, Array]:
        """Maps visible units [B, V] to a.v [B] and the log-odds of the hidden units, b + v W [B, H]."""
        return jnp.matmul(v, self.visible_bias), v @ self.kernel + self.hidden_bias[None]

    def from_hidden(self, h: Array) -> tuple[Array, Array]:
        """Maps hidden units [B, H] to b.h [B] and the log-odds of the visible units, a + W h [B, V]."""
        return jnp.matmul(h, self.hidden_bias), h @ self.kernel.T + self.visible_bias[None]
