"""Deep convolutional generator and discriminator: each stage doubles or halves both sides.

Both keep the contract of `gan_mlp.py`: a generator maps (z, *, train) to images in (-1, 1), a discriminator maps
(x, *, train) to (logits, features). Both follow the paper: strided convolutions instead of pooling, batch normalisation
everywhere except at the generator's output and the discriminator's input, no hidden dense layers, relu in the generator
and leaky relu in the discriminator, tanh at the generator's output, kernels drawn from N(0, 0.02^2).

`features` sets the depth and the width. Sides must be divisible by 2 ** stages:

    8x8        two stages, maps of 2x2 at the smallest     generator (64, 32), discriminator (32, 64)
    28x28      two stages, 7x7                             (128, 64), (64, 128)
    32x32      three stages, 4x4                           (256, 128, 64), (64, 128, 256)

Source: Radford, Metz & Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
    Networks", ICLR 2016, arXiv:1511.06434.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike

from gm_jax.networks import convnet
from gm_jax.networks.convolution import Conv
from gm_jax.networks.gan_mlp import leaky_relu
from gm_jax.networks.normalization import BatchNorm, NormFactory, SpectralNorm
from gm_jax.ops.cpu import conv_transpose
from gm_jax.types import Array

_KERNEL_INIT = nn.initializers.normal(0.02)


class FractionallyStridedConv(nn.Module):
    """A transposed convolution with a 4x4 kernel and stride 2: [B, H, W, C] -> [B, 2H, 2W, F].

    Attributes:
        features: F.
        use_bias: whether it adds a bias.
        dtype: precision of the computation.
    """

    features: int
    use_bias: bool = True
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, H, W, C] to [B, 2H, 2W, F]."""
        kernel = self.param("kernel", _KERNEL_INIT, (4, 4, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv_transpose(x, kernel)
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)


class DCGANGenerator(nn.Module):
    """The generator x~ = G(z): [B, Z] -> [B, H, W, C] in (-1, 1).

    Attributes:
        event_shape: (H, W, C) of one image.
        features: channels of each stage from the latents outwards; the first stage has the smallest map.
        norm: factory of the normalisation of each layer but the last; None disables it.
        dtype: precision of the computation.
    """

    event_shape: tuple[int, ...]
    features: tuple[int, ...]
    norm: NormFactory | None = BatchNorm
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, z: Array, *, train: bool) -> Array:
        """Maps z [B, Z] to [B, H, W, C].

        Raises:
            UserError: event_shape is not the shape of an image, or the stages cannot reach its sides.
        """
        stages = len(self.features)
        convnet.check_sides(self.event_shape, stages=stages)
        height, width, channels = self.event_shape

        def activate(h: Array) -> Array:
            return nn.relu(h if self.norm is None else self.norm()(h, train=train))

        first = (height // 2**stages, width // 2**stages, self.features[0])
        use_bias = self.norm is None
        h = nn.Dense(math.prod(first), use_bias=use_bias, kernel_init=_KERNEL_INIT, dtype=self.dtype)(z)
        h = activate(h.reshape(-1, *first))
        for out in self.features[1:]:
            h = activate(FractionallyStridedConv(out, use_bias=use_bias, dtype=self.dtype)(h))
        return jnp.tanh(FractionallyStridedConv(channels, dtype=self.dtype)(h))


class DCGANDiscriminator(nn.Module):
    """The discriminator: the logit of D(x) and the features before it, [B, H, W, C] -> ([B], [B, F]).

    Attributes:
        features: channels of each stage from the image inwards; F is the last one times the size of the smallest map.
        norm: factory of the normalisation of each stage but the first; None disables it, as critics require.
        spectral_norm: divides every kernel, except minibatch discrimination's, by its largest singular value.
        minibatch_discrimination: a module [B, F] -> [B, F'] that compares the examples of a batch; None disables it.
        output_bias: whether the logit has a bias; in a Wasserstein critic it cancels.
        dtype: precision of the computation; both outputs are float32 at least.
    """

    features: tuple[int, ...]
    norm: NormFactory | None = BatchNorm
    spectral_norm: bool = False
    minibatch_discrimination: nn.Module | None = None
    output_bias: bool = True
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> tuple[Array, Array]:
        """Maps images in [-1, 1], [B, H, W, C], to (logits [B], features [B, F]).

        Raises:
            UserError: x is not a batch of images, or the stages cannot halve its sides.
        """
        convnet.check_sides(x.shape[1:], stages=len(self.features))

        def apply(layer: nn.Module, h: Array) -> Array:
            return SpectralNorm(layer)(h, train=train) if self.spectral_norm else layer(h)

        h = x
        for stage, width in enumerate(self.features):
            norm = self.norm if stage > 0 else None
            layer = Conv(
                width,
                (4, 4),
                strides=(2, 2),
                padding=((1, 1), (1, 1)),
                use_bias=norm is None,
                kernel_init=_KERNEL_INIT,
                dtype=self.dtype,
            )
            h = apply(layer, h)
            h = leaky_relu(h if norm is None else norm()(h, train=train))
        # The last layer and what losses read are float32 at least.
        features = h.reshape(h.shape[0], -1).astype(jnp.promote_types(h.dtype, jnp.float32))
        h = features if self.minibatch_discrimination is None else self.minibatch_discrimination(features)
        logits = apply(nn.Dense(1, self.output_bias, kernel_init=_KERNEL_INIT), h)
        return jnp.squeeze(logits, axis=-1), features
