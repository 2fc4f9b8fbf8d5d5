"""The masked autoencoder for distribution estimation: a perceptron whose masks forbid looking ahead.

Notation: x [B, D] binary; L hidden layers h^l of H_l units; d(u) the degree of a unit u. The degree of dimension i is
its position in the ordering, 0 ... D-1, both where it enters and where it is predicted; a hidden unit of degree m may
know the dimensions of positions 0 ... m, and has 0 <= m <= D-2.

    h^1 = f(b^1 + x (W^1 * M^1)),    h^l = f(b^l + h^{l-1} (W^l * M^l))                              (1)
    logits = b + h^L (V * M) + x (A * M^A)                                                           (2)
    M^l_uv = [d(u) <= d(v)] between layers,    M_ui = [d(u) < d(i)],    M^A_ji = [d(j) < d(i)]       (3)

The comparison is strict once on every path from x_j to the logit of x_i, so only j < i remain: at the output, and on
the direct connections A. Without hidden layers V is A, and the network an FVSBN.

Masks multiply the kernels inside the forward pass and are never written into the weights: with several mask sets,
each would otherwise destroy what the others have learned.

Source: Germain, Gregor, Murray & Larochelle, "MADE: Masked Autoencoder for Distribution Estimation", ICML 2015,
arXiv:1502.03509, eqs. 8-14. Their degrees count from 1.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from gm_jax.types import Array


class MaskSet(NamedTuple):
    """Degrees (3), and the same turned around; or K sets of them, stacked along a leading axis.

    Attributes:
        order: [D] the dimension at each position.
        positions: [D] the position of each dimension, its degree.
        degrees: for each hidden layer [H_l], the degrees of its units.
        units: for each hidden layer [D, G_l], the units that know all that they may once positions 0 ... i-1 are
            known, and not before: those of degree i - 1, filled up with H_l, which is no unit. G_l is the most that
            share a degree.
    """

    order: Array
    positions: Array
    degrees: tuple[Array, ...]
    units: tuple[Array, ...]


def mask_sets(orders: np.ndarray, hidden: Sequence[int], *, seed: int = 0) -> MaskSet:
    """One mask set for each of K orderings, stacked.

    In each layer the degrees are spread evenly over 0 ... D-2, both ends included, and shuffled over the units: so
    every dimension but the last is looked at, every one but the first is predicted from others, and layer sees layer.

    Args:
        orders: [K, D], each row a permutation: the dimension at each position. A row may come more than once, and
            gets other degrees each time.
        hidden: H_1 ... H_L; none for a network without hidden layers.
        seed: of the shuffling.
    Raises:
        ValueError: a row of `orders` is no permutation.
    """
    orders = np.asarray(orders, np.int32)
    num_sets, num_dims = orders.shape
    if not np.array_equal(np.sort(orders, axis=1), np.tile(np.arange(num_dims), (num_sets, 1))):
        raise ValueError("every row of orders must be a permutation of 0 ... D-1.")
    rng = np.random.default_rng(seed)
    # D = 1 leaves no degree that is both below D-1 and at least 0: the units get 0, and no output listens to them.
    spread = [np.rint(np.linspace(0, max(num_dims - 2, 0), width)).astype(np.int32) for width in hidden]
    degrees = tuple(np.stack([rng.permutation(layer) for _ in range(num_sets)]) for layer in spread)
    units = tuple(_units_by_degree(layer, num_dims) for layer in degrees)
    return MaskSet(orders, np.argsort(orders, axis=1).astype(np.int32), degrees, units)


class MADE(nn.Module):
    """Equations (1)-(3): x [B, D] and a mask set -> logits [B, D], in the order of the data.

    `begin` and `step` give the same logits one after the other, in the order of generation. They use each row of each
    kernel once: the work of all D steps together is that of one forward pass.

    Attributes:
        num_dims: D.
        hidden: H_1 ... H_L.
        num_classes: of the labels that move the biases of all layers; None for a network without.
        activation: f.
        direct: the connections A; without hidden layers they are there anyway.
    """

    num_dims: int
    hidden: tuple[int, ...]
    num_classes: int | None = None
    activation: Callable[[Array], Array] = nn.relu
    direct: bool = False

    def setup(self):
        zeros, normal = nn.initializers.zeros, nn.initializers.lecun_normal()
        widths = (self.num_dims, *self.hidden, self.num_dims)
        self.kernels = [self.param(f"kernel_{layer}", normal, shape) for layer, shape in enumerate(pairwise(widths))]
        self.biases = [self.param(f"bias_{layer}", zeros, (width,)) for layer, width in enumerate(widths[1:])]
        if self.num_classes is not None:
            self.label_biases = [
                self.param(f"label_bias_{layer}", zeros, (self.num_classes, width))
                for layer, width in enumerate(widths[1:])
            ]
        if self.direct and self.hidden:
            self.direct_kernel = self.param("direct_kernel", zeros, (self.num_dims, self.num_dims))

    def __call__(self, x: Array, masks: MaskSet, label: Array | None = None) -> Array:
        x = x.astype(self.kernels[0].dtype)
        *hidden_biases, bias = self._biases(x.shape[0], label)
        h, degrees = x, masks.positions
        for kernel, hidden_bias, next_degrees in zip(self.kernels[:-1], hidden_biases, masks.degrees, strict=True):
            h = self.activation(hidden_bias + h @ (kernel * (degrees[:, None] <= next_degrees[None, :])))
            degrees = next_degrees
        logits = bias + h @ (self.kernels[-1] * (degrees[:, None] < masks.positions[None, :]))
        if self.direct and self.hidden:
            logits = logits + x @ (self.direct_kernel * (masks.positions[:, None] < masks.positions[None, :]))
        return logits

    def begin(self, n: int, label: Array | None = None) -> tuple[Array, ...]:
        """For each layer what goes into f, [n, H_l], and the logits [n, D], while no dimension is known."""
        return self._biases(n, label)

    def step(
        self, cache: tuple[Array, ...], i: Array, previous: Array, masks: MaskSet
    ) -> tuple[tuple[Array, ...], Array]:
        """Adds what position i - 1 says to all that depends on it; returns (cache, the logits [n] of position i).

        What is added, layer by layer, is the values of the units that know all that they may since now. No masks are
        needed: a unit is read once, when it has got all that its mask lets through and nothing else as yet.
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
        return tuple(sums), sums[-1][:, masks.order[i]]

    def _biases(self, n: int, label: Array | None) -> tuple[Array, ...]:
        if (label is None) != (self.num_classes is None):
            raise ValueError("a label is for a network with num_classes, and only for that.")
        biases = tuple(jnp.broadcast_to(bias, (n, bias.shape[0])) for bias in self.biases)
        if label is None:
            return biases
        return tuple(bias + of_label[label] for bias, of_label in zip(biases, self.label_biases, strict=True))


def _units_by_degree(degrees: np.ndarray, num_dims: int) -> np.ndarray:
    """[K, H] degrees -> [K, D, G]: row i the units of degree i - 1, filled up with H."""
    num_sets, width = degrees.shape
    counts = np.stack([np.bincount(row, minlength=num_dims) for row in degrees])
    units = np.full((num_sets, num_dims, counts.max(initial=1)), width, np.int32)
    for k, row in enumerate(degrees):
        for degree in range(num_dims - 1):
            (chosen,) = np.nonzero(row == degree)
            units[k, degree + 1, : len(chosen)] = chosen
    return units
