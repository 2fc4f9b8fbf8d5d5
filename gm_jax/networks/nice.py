"""NICE: additive couplings, followed by one scaling of every dimension.

    h = the odd dimensions of x, then the even ones
    h_b <- h_b + m_1(h_a),  h_a <- h_a + m_2(h_b),  h_b <- h_b + m_3(h_a),  ...
    z = exp(s) h

The couplings preserve volume; only the scaling changes it, log det = sum s. Three couplings let every dimension depend
on every other; the paper uses four.

The paper does not state how s starts. Here `init` sets it so that each dimension of its batch has variance 1, or less
if its standard deviation is below MIN_STD. From s = 0 Adam would need thousands of steps to stretch the border of an
image; without MIN_STD, a pixel that is black in the first batch and white in the next would be stretched without limit.

Source: Dinh, Krueger & Bengio, "NICE: Non-linear Independent Components Estimation", ICLR 2015 workshop,
arXiv:1410.8516.
"""

import math
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gm_jax.networks.conditioners import Activation, MLPConditioner
from gm_jax.networks.couplings import Chain, Coupling, additive
from gm_jax.ops import bijectors
from gm_jax.types import Array

MIN_STD = 0.03


class NICE(nn.Module):
    """NICE: x [B, *event_shape] <-> z [B, D].

    Attributes:
        event_shape: shape of one example; its size D is at least 2.
        hidden: widths of each coupling's perceptron; the paper has five layers of 1000 units on MNIST.
        couplings: number of couplings, which alternate between the halves.
        activation: elementwise function after each hidden layer.
        dtype: precision of the perceptrons' computation.
    """

    event_shape: tuple[int, ...]
    hidden: tuple[int, ...]
    couplings: int = 4
    activation: Activation = nn.relu
    dtype: DTypeLike | None = None

    def setup(self) -> None:
        dim = math.prod(self.event_shape)
        conditioner = partial(MLPConditioner, hidden=self.hidden, activation=self.activation, dtype=self.dtype)
        # Not `Repeated`, because a scan would copy the weights of these few wide layers in each step.
        self.chain = Chain([Coupling(dim, additive(), conditioner, flipped=i % 2 == 1) for i in range(self.couplings)])
        self.scaling = Scaling()

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        h, log_det = self.chain.forward(x.reshape(x.shape[0], -1)[:, self._order()])
        z, more = self.scaling.forward(h)
        return z, log_det + more

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        h, log_det = self.scaling.inverse(z)
        h, more = self.chain.inverse(h)
        return h[:, np.argsort(self._order())].reshape(-1, *self.event_shape), log_det + more

    def _order(self) -> np.ndarray:
        """Returns the dimensions [D] with the first half before the second."""
        dims = np.arange(math.prod(self.event_shape))
        return np.concatenate([dims[1::2], dims[::2]])


class Scaling(nn.Module):
    """Scales each dimension, z = exp(s) h, [B, D]; `init` computes s from its batch."""

    def forward(self, h: Array) -> tuple[Array, Array]:
        """Maps h to (z, log_det [B])."""
        return bijectors.scaling(h, self._log_scale(h))

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (h, log_det [B] of the inverse)."""
        return bijectors.scaling_inverse(z, self._log_scale(z))

    @nn.compact
    def _log_scale(self, h: Array) -> Array:
        return self.param("log_scale", lambda key: -jnp.log(jnp.maximum(jnp.std(h, axis=0), MIN_STD)))
