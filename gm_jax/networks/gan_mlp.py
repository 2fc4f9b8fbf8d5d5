"""Fully connected generator and discriminator, for points and for images as vectors.

All generators and discriminators, here, in `dcgan.py` and in `gan_resnet.py`, keep one contract:

    generator:      (z [B, Z], *, train) -> x~ [B, *event_shape]
    discriminator:  (x [B, ...], *, train) -> (logits [B], features [B, F])

`features` are the activations before the last layer and before minibatch discrimination; feature matching compares
them. `train` affects only the normalisations (`normalization.py`). Collections other than "params" are the network's
state. Real and generated examples pass through a discriminator in two calls. A critic is a discriminator whose logits
are scores.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.networks.normalization import NormFactory, SpectralNorm
from gm_jax.types import Array

Activation = Callable[[Array], Array]


def leaky_relu(x: Array) -> Array:
    """Applies the leaky ReLU of slope 0.2, which discriminators use since Radford et al. (2016)."""
    return nn.leaky_relu(x, 0.2)


class MLPGenerator(nn.Module):
    """The generator x~ = G(z): [B, Z] -> [B, *event_shape].

    Attributes:
        hidden: width of each hidden layer.
        event_shape: shape of one example, e.g. (2,).
        norm: factory of the normalisation of each hidden layer; None disables it.
        activation: elementwise function after each hidden layer.
        output_activation: elementwise function of the output: None for points, `jnp.tanh` for images in [-1, 1].
        dtype: precision of the computation.
    """

    hidden: tuple[int, ...]
    event_shape: tuple[int, ...]
    norm: NormFactory | None = None
    activation: Activation = nn.relu
    output_activation: Activation | None = None
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, z: Array, *, train: bool) -> Array:
        """Maps z [B, Z] to [B, *event_shape]."""
        h = z
        for width in self.hidden:
            h = nn.Dense(width, use_bias=self.norm is None, dtype=self.dtype)(h)
            h = self.activation(h if self.norm is None else self.norm()(h, train=train))
        x = nn.Dense(math.prod(self.event_shape), dtype=self.dtype)(h).reshape(-1, *self.event_shape)
        return x if self.output_activation is None else self.output_activation(x)


class MLPDiscriminator(nn.Module):
    """The discriminator: the logit of D(x) and the features before it, [B, ...] -> ([B], [B, F]).

    Attributes:
        hidden: width of each hidden layer; the last is F.
        norm: factory of the normalisation of each hidden layer but the first; None disables it.
        spectral_norm: divides every kernel, except minibatch discrimination's, by its largest singular value.
        minibatch_discrimination: a module [B, F] -> [B, F'] that compares the examples of a batch; None disables it.
        output_bias: whether the logit has a bias; in a Wasserstein critic it cancels.
        activation: elementwise function after each hidden layer.
        dtype: precision of the computation; both outputs are float32 at least.
    """

    hidden: tuple[int, ...]
    norm: NormFactory | None = None
    spectral_norm: bool = False
    minibatch_discrimination: nn.Module | None = None
    output_bias: bool = True
    activation: Activation = leaky_relu
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> tuple[Array, Array]:
        """Maps x [B, ...] to (logits [B], features [B, F])."""

        def dense(h: Array, width: int, dtype: DTypeLike | None, *, use_bias: bool = True) -> Array:
            layer = nn.Dense(width, use_bias=use_bias, dtype=dtype)
            return SpectralNorm(layer)(h, train=train) if self.spectral_norm else layer(h)

        h = x.reshape(x.shape[0], -1)
        for index, width in enumerate(self.hidden):
            norm = self.norm if index > 0 else None
            h = dense(h, width, self.dtype, use_bias=norm is None)
            h = self.activation(h if norm is None else norm()(h, train=train))
        # The last layer and what losses read are float32 at least.
        features = h = h.astype(jnp.promote_types(h.dtype, jnp.float32))
        if self.minibatch_discrimination is not None:
            h = self.minibatch_discrimination(features)
        return jnp.squeeze(dense(h, 1, None, use_bias=self.output_bias), axis=-1), features
