"""The masked autoencoder for distribution estimation: a perceptron whose masks hide later dimensions.

Notation: x [B, D] binary; L hidden layers h^l of H_l units; d(u) the degree of a unit u. The degree of dimension i is
its position in the ordering, 0 ... D-1, as an input and as an output; a hidden unit of degree m, 0 <= m <= D-2, may
depend on the dimensions at positions 0 ... m.

    h^1 = f(b^1 + x (W^1 * M^1)),    h^l = f(b^l + h^{l-1} (W^l * M^l))                              (1)
    logits = b + h^L (V * M) + x (A * M^A)                                                           (2)
    M^l_uv = [d(u) <= d(v)] between layers,    M_ui = [d(u) < d(i)],    M^A_ji = [d(j) < d(i)]       (3)

Every path from x_j to the logit of x_i has exactly one strict comparison, at the output or on the direct connections A,
so only j < i remain. Without hidden layers V is A, and the network is an FVSBN.

Masks multiply the kernels in the forward pass and are never written into the weights: several mask sets share the
weights, and each set would otherwise erase those that the others use.

Source: Germain, Gregor, Murray & Larochelle, "MADE: Masked Autoencoder for Distribution Estimation", ICML 2015,
arXiv:1502.03509, eqs. 8-14. Their degrees count from 1.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from gm_jax.networks.dropout import KeyedDropout
from gm_jax.networks.label_bias import check_label
from gm_jax.types import Array


class MaskSet(NamedTuple):
    """The degrees (3) and their inverse; or K such sets, stacked along a leading axis.

    Attributes:
        order: [D] the dimension at each position.
        positions: [D] the position, which is the degree, of each dimension.
        degrees: for each hidden layer [H_l], the degrees of its units.
        units: for each hidden layer [D, G_l]; row i lists the units of degree i - 1, whose inputs are complete once
            positions 0 ... i-1 are known. Rows are padded by H_l, which is not a unit. G_l is the largest number of
            units that share a degree.
    """

    order: np.ndarray | Array
    positions: np.ndarray | Array
    degrees: tuple[np.ndarray | Array, ...]
    units: tuple[np.ndarray | Array, ...]


def mask_sets(orders: np.ndarray, hidden: Sequence[int], *, seed: int = 0) -> MaskSet:
    """Draws one mask set for each of K orderings, stacked.

    In each layer the degrees are spread evenly over 0 ... D-2, including both ends, and shuffled over the units. So
    every dimension but the last is an input of some unit, and every dimension but the first is predicted from others.

    Args:
        orders: [K, D]; each row is a permutation, the dimension at each position. A repeated row gets other degrees.
        hidden: H_1 ... H_L; empty for a network without hidden layers.
        seed: seed of the shuffling.
    Raises:
        ValueError: a row of `orders` is not a permutation.
    """
    orders = np.asarray(orders, np.int32)
    num_sets, num_dims = orders.shape
    if not np.array_equal(np.sort(orders, axis=1), np.tile(np.arange(num_dims), (num_sets, 1))):
        raise ValueError(f"every row of orders must be a permutation of 0 ... {num_dims - 1}.")
    rng = np.random.default_rng(seed)
    # D = 1 has no valid degree: the units get 0, and no output reads them.
    spread = [np.rint(np.linspace(0, max(num_dims - 2, 0), width)).astype(np.int32) for width in hidden]
    degrees = tuple(np.stack([rng.permutation(layer) for _ in range(num_sets)]) for layer in spread)
    units = tuple(_units_by_degree(layer, num_dims) for layer in degrees)
    return MaskSet(orders, np.argsort(orders, axis=1).astype(np.int32), degrees, units)


class MADE(nn.Module):
    """MADE, eqs. (1)-(3): x [B, D] and a mask set -> logits [B, D], in the order of the data.

    `begin` and `step` compute the same logits one at a time, in the order of generation. They read each row of each
    kernel once, so all D steps together cost one forward pass.

    Attributes:
        num_dims: D.
        hidden: H_1 ... H_L.
        num_classes: number of classes of the labels, which shift all biases; None for a network without labels.
        activation: f.
        direct: adds the connections A; a network without hidden layers always has them.
        dropout: dropout rate of the hidden units in training.
        outputs: P, numbers for each dimension, such as a mean and a log-scale: the logits are [B, P D], one block of D
            after the other, and those of a step [n, P].
        output_init: initialiser of V.
    """

    num_dims: int
    hidden: tuple[int, ...]
    num_classes: int | None = None
    activation: Callable[[Array], Array] = nn.relu
    direct: bool = False
    dropout: float = 0.0
    outputs: int = 1
    output_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    def setup(self) -> None:
        zeros, normal = nn.initializers.zeros, nn.initializers.lecun_normal()
        self.drop = KeyedDropout(self.dropout)

        def param(name: str, init: nn.initializers.Initializer, shape: tuple[int, ...]) -> Array:
            return jnp.asarray(self.param(name, init, shape))

        widths = (self.num_dims, *self.hidden, self.outputs * self.num_dims)
        inits = [*([normal] * len(self.hidden)), self.output_init]
        shapes = zip(inits, pairwise(widths), strict=True)
        self.kernels = [param(f"kernel_{layer}", init, shape) for layer, (init, shape) in enumerate(shapes)]
        self.biases = [param(f"bias_{layer}", zeros, (width,)) for layer, width in enumerate(widths[1:])]
        if self.num_classes is not None:
            self.label_biases = [
                param(f"label_bias_{layer}", zeros, (self.num_classes, width)) for layer, width in enumerate(widths[1:])
            ]
        if self.direct and self.hidden:
            self.direct_kernel = param("direct_kernel", zeros, (self.num_dims, self.outputs * self.num_dims))

    def __call__(self, x: Array, masks: MaskSet, label: Array | None = None) -> Array:
        """Maps x [B, D], one mask set and labels [B] to logits [B, P D]."""
        x = x.astype(self.kernels[0].dtype)
        *hidden_biases, bias = self._biases(x.shape[0], label)
        h, degrees = x, masks.positions
        for kernel, hidden_bias, next_degrees in zip(self.kernels[:-1], hidden_biases, masks.degrees, strict=True):
            h = self.activation(hidden_bias + h @ (kernel * (degrees[:, None] <= next_degrees[None, :])))
            h = self.drop(h)
            degrees = next_degrees
        outputs = jnp.tile(masks.positions, self.outputs)
        logits = bias + h @ (self.kernels[-1] * (degrees[:, None] < outputs[None, :]))
        if self.direct and self.hidden:
            logits = logits + x @ (self.direct_kernel * (masks.positions[:, None] < outputs[None, :]))
        return logits

    def begin(self, n: int, label: Array | None = None) -> tuple[Array, ...]:
        """Returns the cache before the first step: each layer's sums [n, H_l], and the logits [n, P D]."""
        return self._biases(n, label)

    def step(
        self, cache: tuple[Array, ...], i: Array, previous: Array, masks: MaskSet
    ) -> tuple[tuple[Array, ...], Array]:
        """Adds the contribution of position i - 1 to every sum; returns (cache, the logits [n] of position i; [n, P]).

        Layer by layer it adds the values of those units whose inputs are now complete. It needs no masks, because a
        unit is read once, when it holds exactly the inputs that its mask lets through.
        """
        sums = list(cache)
        known, dim = previous[:, None].astype(sums[0].dtype), masks.order[i - 1]
        sums[0] = sums[0] + known * self.kernels[0][dim][None]
        if self.direct and self.hidden:
            sums[-1] = sums[-1] + known * self.direct_kernel[dim][None]
        for layer, (kernel, units) in enumerate(zip(self.kernels[1:], masks.units, strict=True)):
            chosen = units[i]
            width = kernel.shape[0]
            h = self.activation(jnp.take(sums[layer], chosen, axis=1, mode="clip"))
            h = jnp.where((chosen < width)[None], h, 0.0)
            sums[layer + 1] = sums[layer + 1] + h @ jnp.take(kernel, chosen, axis=0, mode="clip")
        if self.outputs == 1:
            return tuple(sums), sums[-1][:, masks.order[i]]
        return tuple(sums), sums[-1].reshape(-1, self.outputs, self.num_dims)[:, :, masks.order[i]]

    def _biases(self, n: int, label: Array | None) -> tuple[Array, ...]:
        check_label(label, self.num_classes)
        biases = tuple(jnp.broadcast_to(bias, (n, bias.shape[0])) for bias in self.biases)
        if label is None:
            return biases
        return tuple(bias + of_label[label] for bias, of_label in zip(biases, self.label_biases, strict=True))


def _units_by_degree(degrees: np.ndarray, num_dims: int) -> np.ndarray:
    """Inverts degrees [K, H] to [K, D, G]: row i lists the units of degree i - 1, padded by H."""
    num_sets, width = degrees.shape
    counts = np.stack([np.bincount(row, minlength=num_dims) for row in degrees])
    units = np.full((num_sets, num_dims, counts.max(initial=1)), width, np.int32)
    for k, row in enumerate(degrees):
        for degree in range(num_dims - 1):
            (chosen,) = np.nonzero(row == degree)
            units[k, degree + 1, : len(chosen)] = chosen
    return units
