"""The neural autoregressive distribution estimator: D conditionals that share one hidden layer's weights.

Notation: x [B, D] binary, order [D]: order[i] is the dimension at position i; "<" compares positions; H hidden units.

    h_i = f(c + sum_{j < i} W_j x_j)                                                                 (1)
    log-odds of x_i = b_i + V_i . h_i                                                                (2)
    a_0 = c,    a_{i+1} = a_i + W_i x_i,    h_i = f(a_i)                                             (3)

The recursion (3) computes all D conditionals in one pass of O(D H); computing each (1) from scratch takes O(D^2 H).

Source: Larochelle & Murray, "The Neural Autoregressive Distribution Estimator", AISTATS 2011; Uria et al., "Neural
Autoregressive Distribution Estimation", JMLR 2016, arXiv:1605.02226, section 2.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.networks.label_bias import check_label
from gm_jax.ops.cpu import matvec
from gm_jax.types import Array


class NADE(nn.Module):
    """NADE, eqs. (1)-(3): x [B, D] and an ordering -> logits [B, D], in the order of the data.

    `begin` and `step` compute the same logits one at a time, in the order of generation.

    Attributes:
        num_dims: D.
        hidden: H.
        num_classes: number of classes of the labels, which shift the biases b and c; None for a network without labels.
        activation: f.
        chunk: steps between two activations that training stores; it recomputes the others. About sqrt(D) needs the
            least memory.
    """

    num_dims: int
    hidden: int
    num_classes: int | None = None
    activation: Callable[[Array], Array] = nn.sigmoid
    chunk: int = 32

    def setup(self) -> None:
        zeros, lecun_normal = nn.initializers.zeros, nn.initializers.lecun_normal
        # W and V have one row for each dimension, because a step reads one row of each.
        shape = (self.num_dims, self.hidden)
        self.encoder = self.param("encoder", lecun_normal(), shape)
        self.decoder = self.param("decoder", lecun_normal(in_axis=1, out_axis=0), shape)
        self.hidden_bias = self.param("hidden_bias", zeros, (self.hidden,))
        self.bias = self.param("bias", zeros, (self.num_dims,))
        if self.num_classes is not None:
            self.label_hidden_bias = self.param("label_hidden_bias", zeros, (self.num_classes, self.hidden))
            self.label_bias = self.param("label_bias", zeros, (self.num_classes, self.num_dims))

    def __call__(self, x: Array, order: Array, label: Array | None = None) -> Array:
        """Maps x [B, D], an ordering [D] and labels [B] to logits [B, D]."""
        activation, bias = self._biases(x.shape[0], label)

        def visit(activation: Array, position: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            x_i, encoder_i, decoder_i = position
            logits = matvec(self.activation(activation), decoder_i)
            return activation + x_i[:, None] * encoder_i[None], logits

        # The backward pass recomputes h_i within a step and a_i within a chunk of steps.
        visit = jax.checkpoint(visit, prevent_cse=False)
        visit_chunk = jax.checkpoint(partial(jax.lax.scan, visit), prevent_cse=False)
        positions = (x.astype(bias.dtype).T[order], self.encoder[order], self.decoder[order])
        _, logits = jax.lax.scan(visit_chunk, activation, jax.tree.map(self._in_chunks, positions))
        logits = logits.reshape(-1, x.shape[0])[: self.num_dims]
        return logits[jnp.argsort(order)].T + bias

    def begin(self, n: int, label: Array | None = None) -> tuple[Array, Array]:
        """Returns the cache before the first step: (a_0 [n, H], the biases [n, D])."""
        return self._biases(n, label)

    def step(
        self, cache: tuple[Array, Array], i: Array, previous: Array, order: Array
    ) -> tuple[tuple[Array, Array], Array]:
        """Adds the contribution of position i - 1, eq. (3); returns (cache, the logits [n] of position i)."""
        activation, bias = cache
        activation = activation + previous[:, None].astype(bias.dtype) * self.encoder[order[i - 1]][None]
        logits = self.activation(activation) @ self.decoder[order[i]] + bias[:, order[i]]
        return (activation, bias), logits

    def _in_chunks(self, rows: Array) -> Array:
        """Splits [D, ...] into [D / chunk, chunk, ...], padded by zeros: steps that change nothing."""
        chunk = min(self.chunk, self.num_dims)
        padded = jnp.pad(rows, [(0, -self.num_dims % chunk), (0, 0)])
        return padded.reshape(-1, chunk, rows.shape[1])

    def _biases(self, n: int, label: Array | None) -> tuple[Array, Array]:
        check_label(label, self.num_classes)
        hidden_bias = jnp.broadcast_to(self.hidden_bias, (n, self.hidden))
        bias = jnp.broadcast_to(self.bias, (n, self.num_dims))
        if label is None:
            return hidden_bias, bias
        return hidden_bias + self.label_hidden_bias[label], bias + self.label_bias[label]
