"""Masked autoregressive flows and inverse autoregressive flows.

Each dimension is scaled and shifted, with numbers that a MADE computes from the dimensions before it:

    MAF:    z_i = x_i exp(log s_i(x_<i)) + t_i(x_<i),          log |det dz/dx| = sum_i log s_i         (1)
    IAF:    x_i = z_i exp(log s_i(z_<i)) + t_i(z_<i),          log |det dx/dz| = sum_i log s_i         (2)

The Jacobians are triangular. (1) is a density that is a product of normal conditionals, found in one pass of the MADE,
and a sample takes D steps; (2) is the inverse of (1) with the same parameters: a sample takes one pass, and the density
of given data D steps. The D steps need as many multiplications as one pass, but one step after the other, see
`networks.made`.

Every other layer runs through the dimensions in reverse. An actnorm replaces the papers' batch normalisation, because
the density of an example must not depend on its batch. The log-scales are bounded, log s = b tanh(r / b).

Sources: Papamakarios, Pavlakou & Murray, "Masked Autoregressive Flow for Density Estimation", NeurIPS 2017,
arXiv:1705.07057, eqs. 2-5; Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling, "Improving Variational Inference
with Inverse Autoregressive Flow", NeurIPS 2016, arXiv:1606.04934, eqs. 10-12.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.networks.conditioners import Activation
from gm_jax.networks.couplings import ActNorm, Chain, Repeated
from gm_jax.networks.made import MADE, MaskSet, mask_sets
from gm_jax.ops import bijectors
from gm_jax.types import Array


class AutoregressiveLayer(nn.Module):
    """The map (1) of x [B, D], which starts as the identity.

    Attributes:
        num_dims: D.
        hidden: widths of the MADE.
        bound: b.
        reverse: runs through the dimensions from the last to the first.
        inverted: is the map (2) instead.
        activation: elementwise function after each hidden layer.
    """

    num_dims: int
    hidden: tuple[int, ...]
    bound: float
    reverse: bool = False
    inverted: bool = False
    activation: Activation = nn.relu

    def setup(self) -> None:
        zeros = nn.initializers.zeros
        self.network = MADE(self.num_dims, self.hidden, None, self.activation, outputs=2, output_init=zeros)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        return self._in_steps(x) if self.inverted else self._at_once(x)

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        return self._at_once(z) if self.inverted else self._in_steps(z)

    def _at_once(self, known: Array) -> tuple[Array, Array]:
        """Transforms dimensions all of which are known."""
        raw = self.network(known, self._masks())
        return bijectors.affine_coupling(known, *jnp.split(raw, 2, axis=1), bound=self.bound)

    def _in_steps(self, wanted: Array) -> tuple[Array, Array]:
        """Undoes `_at_once`, one dimension after the other."""
        masks = self._masks()

        def visit(carry: tuple[tuple, Array], position: tuple[Array, Array]) -> tuple[tuple, tuple[Array, Array]]:
            (cache, previous), (i, value) = carry, position
            cache, raw = self.network.step(cache, i, previous, masks)
            shift, log_scale = jnp.split(raw, 2, axis=1)
            value, log_det = bijectors.affine_coupling_inverse(value[:, None], shift, log_scale, bound=self.bound)
            return (cache, value[:, 0]), (value[:, 0], log_det)

        in_order = jnp.take(wanted, masks.order, axis=1).T
        start = (self.network.begin(wanted.shape[0]), jnp.zeros_like(in_order[0]))
        _, (values, log_dets) = jax.lax.scan(visit, start, (jnp.arange(self.num_dims), in_order))
        return values[masks.positions].T, jnp.sum(log_dets, axis=0)

    def _masks(self) -> MaskSet:
        order = np.arange(self.num_dims)
        sets = mask_sets((order[::-1] if self.reverse else order)[None], self.hidden)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), sets)


class AutoregressiveFlow(nn.Module):
    """A flow of blocks of an actnorm and two autoregressive layers of opposite order: x [B, *event_shape] <-> z [B, D].

    Attributes:
        event_shape: shape of one example.
        hidden: widths of each layer's MADE.
        blocks: number of blocks.
        bound: b, the bound of the log-scales.
        inverted: an inverse autoregressive flow (2) in place of a masked autoregressive flow (1).
        activation: elementwise function after each hidden layer.
    """

    event_shape: tuple[int, ...]
    hidden: tuple[int, ...]
    blocks: int
    bound: float = 2.0
    inverted: bool = False
    activation: Activation = nn.relu

    def setup(self) -> None:
        dim = math.prod(self.event_shape)
        pair = [
            AutoregressiveLayer(dim, self.hidden, self.bound, reverse, self.inverted, self.activation)
            for reverse in (False, True)
        ]
        # Pixels share one unit; the columns of a table do not.
        actnorm = ActNorm(dim, shared_scale=len(self.event_shape) > 1)
        self.layers = Repeated(Chain([actnorm, *pair]), self.blocks)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        return self.layers.forward(x.reshape(x.shape[0], -1))

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        x, log_det = self.layers.inverse(z)
        return x.reshape(-1, *self.event_shape), log_det
