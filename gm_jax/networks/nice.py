"""NICE: additive couplings, and one scaling of every dimension at the end.

    h = every other dimension of x first, then the rest
    h_b <- h_b + m_1(h_a),  h_a <- h_a + m_2(h_b),  h_b <- h_b + m_3(h_a),  ...
    z = exp(s) h

The couplings keep the volume: the scaling alone says how much of the latent space a dimension takes, log det = sum s.
Three couplings let every dimension depend on every other; the paper takes four.

Where the paper says nothing of how s begins, it begins so that `init`'s batch has variance 1 in each dimension, or less
where it varies less than MIN_STD: from 0, Adam would walk for thousands of steps to where the border of an image is
stretched enough; but a pixel that is black in the first batch may be white in the next.

Source: Dinh, Krueger & Bengio, "NICE: Non-linear Independent Components Estimation", ICLR 2015 workshop,
arXiv:1410.8516.
"""

import math
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gm_jax.networks.couplings import Activation, Chain, Coupling, MLPConditioner, additive
from gm_jax.ops import bijectors
from gm_jax.types import Array

MIN_STD = 0.03


class NICE(nn.Module):
    """x [B, *event_shape] <-> z [B, D].

    Attributes:
        event_shape: of one example; D, its size, is at least 2.
        hidden: widths of each coupling's perceptron; the paper has five layers of 1000 units on MNIST.
        couplings: how many, alternating between the halves.
        activation: elementwise function after each hidden layer.
        dtype: precision of the perceptrons' computation.
    """

    event_shape: tuple[int, ...]
    hidden: tuple[int, ...]
    couplings: int = 4
    activation: Activation = nn.relu
    dtype: DTypeLike | None = None

    def setup(self):
        dim = math.prod(self.event_shape)
        conditioner = partial(MLPConditioner, hidden=self.hidden, activation=self.activation, dtype=self.dtype)
        # Not `Repeated`: of a few wide layers a scan would first copy the weights that each step takes.
        self.chain = Chain([Coupling(dim, additive(), conditioner, flipped=i % 2 == 1) for i in range(self.couplings)])
        self.scaling = Scaling()

    def forward(self, x: Array) -> tuple[Array, Array]:
        h, log_det = self.chain.forward(x.reshape(x.shape[0], -1)[:, self._order()])
        z, more = self.scaling.forward(h)
        return z, log_det + more

    def inverse(self, z: Array) -> tuple[Array, Array]:
        h, log_det = self.scaling.inverse(z)
        h, more = self.chain.inverse(h)
        return h[:, np.argsort(self._order())].reshape(-1, *self.event_shape), log_det + more

    def _order(self) -> np.ndarray:
        """[D] the dimensions in the order in which the two halves lie side by side."""
        dims = np.arange(math.prod(self.event_shape))
        return np.concatenate([dims[1::2], dims[::2]])


class Scaling(nn.Module):
    """z = exp(s) h, [B, D], each dimension by itself; `init` takes s from its batch."""

    def forward(self, h: Array) -> tuple[Array, Array]:
        return bijectors.scaling(h, self._log_scale(h))

    def inverse(self, z: Array) -> tuple[Array, Array]:
        return bijectors.scaling_inverse(z, self._log_scale(z))

    @nn.compact
    def _log_scale(self, h: Array) -> Array:
        return self.param("log_scale", lambda key: -jnp.log(jnp.maximum(jnp.std(h, axis=0), MIN_STD)))
