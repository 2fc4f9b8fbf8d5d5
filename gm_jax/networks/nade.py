"""The neural autoregressive distribution estimator: D conditionals that share one hidden layer's weights.

Notation: x [B, D] binary, order [D]: order[i] is the dimension at position i; "<" compares positions; H hidden units.

    h_i = f(c + sum_{j < i} W_j x_j)                                                                 (1)
    log-odds of x_i = b_i + V_i . h_i                                                                (2)
    a_0 = c,    a_{i+1} = a_i + W_i x_i,    h_i = f(a_i)                                             (3)

The recursion (3) computes all D conditionals in one pass of O(D H) operations, one position after the other. An
accelerator would wait for D small products, so it computes (1) for a block of S positions at once, by one product with
a triangular mask:

    a_i = a_start + sum_{start <= j < i} x_j W_j,    start <= i < start + S;    a_start by (3)        (4)

which takes O(D S H) operations. Training keeps the activations at the starts of blocks and recomputes the others. The
recursion keeps the last one alone, and its derivative goes back to the others, with g_i = dL/d(V_i . h_i):

    a_i = a_{i+1} - W_i x_i,    dL/da_i = dL/da_{i+1} + g_i V_i f'(a_i),    dL/da_D = 0              (5)
    dL/dW_i = x_i dL/da_{i+1},    dL/dV_i = g_i h_i,    dL/dx_i = W_i . dL/da_{i+1}

summed over the batch for W and V. Each subtraction rounds a by about 6e-8 max |a| in float32.

Source: Larochelle & Murray, "The Neural Autoregressive Distribution Estimator", AISTATS 2011; Uria et al., "Neural
Autoregressive Distribution Estimation", JMLR 2016, arXiv:1605.02226, section 2.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.networks.label_bias import check_label
from gm_jax.types import Array

# XLA for CPUs gives an operation of B H numbers one thread up to about UNDIVIDED. Threads wait for each other, so that
# a batch of up to WORTH_DIVIDING numbers is faster in parts that one thread computes, one after the other. Each part
# computes gradients of W and V of its own; with at least LEAST_ROWS rows these cost little. Measured with sigmoids in
# float32 on two cores.
UNDIVIDED = 2**15
WORTH_DIVIDING = 2**17
LEAST_ROWS = 16


class Positions(NamedTuple):
    """What each position adds, in the order of generation: x [D, B], W [D, H] and V [D, H]."""

    x: Array
    encoder: Array
    decoder: Array


def one_by_one(f: Callable[[Array], Array], start: Array, positions: Positions) -> Array:
    """Computes V_i . h_i by the recursion (3), and its derivative by (5); it has no forward mode.

    Args:
        f: the activation, which closes over no traced value.
        start: [B, H] a_0.
        positions: of D.
    Returns:
        [D, B].
    """
    dtype = jnp.result_type(start, *positions)
    start, positions = jax.tree.map(lambda array: array.astype(dtype), (start, positions))
    parts = _num_parts(*start.shape)
    edges = [len(start) * i // parts for i in range(parts + 1)]
    logits = [
        cast(Array, _recursion(f, start[low:high], positions._replace(x=positions.x[:, low:high])))
        for low, high in itertools.pairwise(edges)
    ]
    return jnp.concatenate(logits, axis=1)


def _num_parts(batch: int, hidden: int) -> int:
    # On several devices parts would cut across a sharded batch, and XLA divides no operation of a mapped step anyway.
    if batch * hidden > WORTH_DIVIDING or _num_cpus() > 1:
        return 1
    return max(1, min(batch // LEAST_ROWS, -(-batch * hidden // UNDIVIDED)))


def _num_cpus() -> int:
    """Counts the CPU devices of all processes; none where JAX_PLATFORMS names accelerators alone."""
    try:
        return jax.device_count("cpu")
    except RuntimeError:
        return 0


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recursion(f: Callable[[Array], Array], start: Array, positions: Positions) -> Array:
    return _forwards(f, start, positions)[0]


def _forwards(f: Callable[[Array], Array], start: Array, positions: Positions) -> tuple[Array, tuple[Array, Positions]]:
    def visit(a: Array, position: Positions) -> tuple[Array, Array]:
        x, encoder, decoder = position
        return a + x[:, None] * encoder[None], jnp.sum(f(a) * decoder[None], axis=-1)

    end, logits = jax.lax.scan(visit, start, positions)
    return logits, (end, positions)


def _backwards(f: Callable[[Array], Array], stored: tuple[Array, Positions], g: Array) -> tuple[Array, Positions]:
    def visit(carry: tuple[Array, Array], along: tuple[Positions, Array]) -> tuple[tuple[Array, Array], Positions]:
        (a, da), ((x, encoder, decoder), g) = carry, along
        dx, d_encoder = jnp.sum(da * encoder[None], axis=-1), x @ da
        a = a - x[:, None] * encoder[None]
        h, derivative = jax.vjp(f, a)
        (through,) = derivative(g[:, None] * decoder[None])
        return (a, da + through), Positions(dx, d_encoder, g @ h)

    end, positions = stored
    (_, d_start), gradients = jax.lax.scan(visit, (end, jnp.zeros_like(end)), (positions, g), reverse=True)
    return d_start, gradients


_recursion.defvjp(_forwards, _backwards)


def in_blocks(f: Callable[[Array], Array], start: Array, positions: Positions, *, block: int) -> Array:
    """Computes V_i . h_i by blocks (4).

    Args:
        f: the activation.
        start: [B, H] a_0.
        positions: of D.
        block: the largest number of positions at once.
    Returns:
        [D, B].
    """

    @partial(jax.checkpoint, prevent_cse=False)
    def visit(a: Array, positions: Positions) -> tuple[Array, Array]:
        x, encoder, decoder = positions
        before = jnp.tri(len(x), k=-1, dtype=x.dtype)  # [i, j]: j < i
        sums = jnp.einsum("ijb,jh->ibh", before[:, :, None] * x[None], encoder)
        logits = jnp.sum(f(a[None] + sums) * decoder[:, None], axis=-1)
        return a + x.T @ encoder, logits

    # Blocks of equal lengths need the least padding.
    size = -(-len(positions.x) // -(-len(positions.x) // block))
    _, logits = jax.lax.scan(visit, start, _split(positions, size))
    return logits.reshape(-1, start.shape[0])[: len(positions.x)]


def _split(positions: Positions, size: int) -> Positions:
    """Splits [D, ...] into [D / size, size, ...], padded by zeros: positions that change nothing."""
    num = len(positions.x)
    size = min(size, num)
    return jax.tree.map(
        lambda rows: jnp.pad(rows, [(0, -num % size), (0, 0)]).reshape(-1, size, rows.shape[1]), positions
    )


class NADE(nn.Module):
    """NADE, eqs. (1)-(5): x [B, D] and an ordering -> logits [B, D], in the order of the data.

    CPUs compute the recursion (3) and accelerators the blocks (4); the platform is that of the compiled program, so a
    plan for TPUs has the blocks. Memory in training, besides the parameters and their gradients: by (3) a few times B H
    numbers, and 2 D H for each further part of the batch; by (4) about B H (D / block + 3 block). On a CPU `jax.jvp`
    raises an error: the derivative goes backwards only.

    `begin` and `step` compute the same logits one at a time, in the order of generation.

    Attributes:
        num_dims: D.
        hidden: H.
        num_classes: number of classes of the labels, which shift the biases b and c; None for a network without labels.
        activation: f, which closes over no traced value.
        block: S of (4), at most: the blocks have equal lengths.
    """

    num_dims: int
    hidden: int
    num_classes: int | None = None
    activation: Callable[[Array], Array] = nn.sigmoid
    block: int = 128

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
        start, bias = self._biases(x.shape[0], label)
        positions = Positions(x.astype(bias.dtype).T[order], self.encoder[order], self.decoder[order])
        logits = jax.lax.platform_dependent(
            start,
            positions,
            cpu=partial(one_by_one, self.activation),
            default=partial(in_blocks, self.activation, block=self.block),
        )
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

    def _biases(self, n: int, label: Array | None) -> tuple[Array, Array]:
        check_label(label, self.num_classes)
        hidden_bias = jnp.broadcast_to(self.hidden_bias, (n, self.hidden))
        bias = jnp.broadcast_to(self.bias, (n, self.num_dims))
        if label is None:
            return hidden_bias, bias
        return hidden_bias + self.label_hidden_bias[label], bias + self.label_bias[label]
