"""The neural autoregressive distribution estimator: D conditionals that share one hidden layer's weights.

Notation: x [B, D] binary, order [D]: order[i] is the dimension at position i; "<" compares positions; H hidden units.

    h_i = f(c + sum_{j < i} W_j x_j)                                                                 (1)
    log-odds of x_i = b_i + V_i . h_i                                                                (2)
    a_0 = c,    a_{i+1} = a_i + W_i x_i,    h_i = f(a_i)                                             (3)

By the recursion (3) all D conditionals are one pass of D cheap steps, O(D H); to compute each (1) anew is O(D^2 H).

Source: Larochelle & Murray, "The Neural Autoregressive Distribution Estimator", AISTATS 2011; Uria et al., "Neural
Autoregressive Distribution Estimation", JMLR 2016, arXiv:1605.02226, section 2.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.types import Array

# Steps between two activations that training stores; about sqrt(784), where the memory is least. At 784 x 500 and a
# batch of 100, storing all of them makes a training step half as long again.
_CHUNK = 32


class NADE(nn.Module):
    """Equations (1)-(3): x [B, D] and an ordering -> logits [B, D], in the order of the data.

    `begin` and `step` give the same logits one after the other, in the order of generation.

    Attributes:
        num_dims: D.
        hidden: H.
        num_classes: of the labels that move the biases b and c; None for a network without.
        activation: f.
    """

    num_dims: int
    hidden: int
    num_classes: int | None = None
    activation: Callable[[Array], Array] = nn.sigmoid

    def setup(self):
        zeros, lecun_normal = nn.initializers.zeros, nn.initializers.lecun_normal
        # W and V, both with a row for each dimension: a step reads one of each.
        shape = (self.num_dims, self.hidden)
        self.encoder = self.param("encoder", lecun_normal(), shape)
        self.decoder = self.param("decoder", lecun_normal(in_axis=1, out_axis=0), shape)
        self.hidden_bias = self.param("hidden_bias", zeros, (self.hidden,))
        self.bias = self.param("bias", zeros, (self.num_dims,))
        if self.num_classes is not None:
            self.label_hidden_bias = self.param("label_hidden_bias", zeros, (self.num_classes, self.hidden))
            self.label_bias = self.param("label_bias", zeros, (self.num_classes, self.num_dims))

    def __call__(self, x: Array, order: Array, label: Array | None = None) -> Array:
        activation, bias = self._biases(x.shape[0], label)

        def visit(activation: Array, position: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            x_i, encoder_i, decoder_i = position
            logits = _rows_dot(self.activation(activation), decoder_i)
            return activation + x_i[:, None] * encoder_i[None], logits

        # What a checkpoint drops is computed again on the way back: h_i within a step, a_i within a chunk of steps.
        visit = jax.checkpoint(visit, prevent_cse=False)
        visit_chunk = jax.checkpoint(partial(jax.lax.scan, visit), prevent_cse=False)
        positions = (x.astype(bias.dtype).T[order], self.encoder[order], self.decoder[order])
        _, logits = jax.lax.scan(visit_chunk, activation, jax.tree.map(self._in_chunks, positions))
        logits = logits.reshape(-1, x.shape[0])[: self.num_dims]
        return logits[jnp.argsort(order)].T + bias

    def begin(self, n: int, label: Array | None = None) -> tuple[Array, Array]:
        """(a_0 [n, H], the biases [n, D])."""
        return self._biases(n, label)

    def step(
        self, cache: tuple[Array, Array], i: Array, previous: Array, order: Array
    ) -> tuple[tuple[Array, Array], Array]:
        """Adds what position i - 1 says, (3); returns (cache, the logits [n] of position i)."""
        activation, bias = cache
        activation = activation + previous[:, None].astype(bias.dtype) * self.encoder[order[i - 1]][None]
        logits = self.activation(activation) @ self.decoder[order[i]] + bias[:, order[i]]
        return (activation, bias), logits

    def _in_chunks(self, rows: Array) -> Array:
        """[D, ...] -> [D / chunk, chunk, ...], filled up with zeros, which are steps that change nothing."""
        chunk = min(_CHUNK, self.num_dims)
        padded = jnp.pad(rows, [(0, -self.num_dims % chunk), (0, 0)])
        return padded.reshape(-1, chunk, rows.shape[1])

    def _biases(self, n: int, label: Array | None) -> tuple[Array, Array]:
        if (label is None) != (self.num_classes is None):
            raise ValueError("a label is for a network with num_classes, and only for that.")
        hidden_bias = jnp.broadcast_to(self.hidden_bias, (n, self.hidden))
        bias = jnp.broadcast_to(self.bias, (n, self.num_dims))
        if label is None:
            return hidden_bias, bias
        return hidden_bias + self.label_hidden_bias[label], bias + self.label_bias[label]


@jax.custom_jvp
def _rows_dot(h: Array, v: Array) -> Array:
    """For h [B, H] and v [H] h @ v, as a sum: XLA fuses it with what made h; a product is thrice as slow on a CPU."""
    return jnp.sum(h * v[None], axis=-1)


@_rows_dot.defjvp
def _rows_dot_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (h, v), (h_dot, v_dot) = primals, tangents
    # A product in v, so that its gradient is one as well: that saves a fifth of a training step.
    return _rows_dot(h, v), jnp.sum(h_dot * v[None], axis=-1) + h @ v_dot
