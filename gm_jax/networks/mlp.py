"""Fully connected networks: a perceptron, and the encoder and decoder of a variational autoencoder.

Encoders map x [B, ...] to the moments of q(z|x), (mean [B, Z], log_var [B, Z]). Decoders map z [B, Z] to the parameters
of p(x|z), [B, *event_shape[:-1], C * P]; the P parameters of each dimension are P blocks on the last axis. Parameters
are float32; `dtype` is the precision of the computation (None: the input's).
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.types import Array

Activation = Callable[[Array], Array]


class MLP(nn.Module):
    """A multilayer perceptron, [B, D] -> [B, out], with a linear last layer.

    Attributes:
        hidden: width of each hidden layer.
        out: width of the output.
        activation: elementwise function after each hidden layer.
        dtype: precision of the computation.
    """

    hidden: tuple[int, ...]
    out: int
    activation: Activation = nn.relu
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, D] to [B, out]."""
        for width in self.hidden:
            x = self.activation(nn.Dense(width, dtype=self.dtype)(x))
        return nn.Dense(self.out, dtype=self.dtype)(x)


class MLPEncoder(nn.Module):
    """The moments of a diagonal normal q(z|x): [B, ...] -> (mean [B, Z], log_var [B, Z]).

    Attributes:
        hidden: width of each hidden layer.
        latent_dim: Z.
        activation: elementwise function after each hidden layer; Burda et al. (2016) use tanh.
        dtype: precision of the computation.
    """

    hidden: tuple[int, ...]
    latent_dim: int
    activation: Activation = nn.tanh
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Maps scaled floats x [B, ...] to (mean [B, Z], log_var [B, Z])."""
        x = x.reshape(x.shape[0], -1)
        # One product for both heads is faster than two thin ones.
        moments = MLP(self.hidden, 2 * self.latent_dim, self.activation, self.dtype)(x)
        mean, log_var = jnp.split(moments, 2, axis=-1)
        return mean, log_var


class MLPDecoder(nn.Module):
    """The parameters of p(x|z): [B, Z] -> [B, *event_shape[:-1], C * outputs_per_dim].

    Attributes:
        hidden: width of each hidden layer.
        event_shape: shape of one example, e.g. (28, 28, 1) or (2,); its last axis is C.
        outputs_per_dim: P, the number of parameters of the likelihood for each dimension of x.
        activation: elementwise function after each hidden layer.
        dtype: precision of the computation.
    """

    hidden: tuple[int, ...]
    event_shape: tuple[int, ...]
    outputs_per_dim: int = 1
    activation: Activation = nn.tanh
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Maps z [B, Z] to [B, *event_shape[:-1], C * P]."""
        *sides, channels = self.event_shape
        shape = (*sides, channels * self.outputs_per_dim)
        outputs = MLP(self.hidden, math.prod(shape), self.activation, self.dtype)(z)
        return outputs.reshape(z.shape[0], *shape)
