"""Deep convolutional generator and discriminator: each stage doubles or halves both sides.

The contract is that of `gan_mlp.py`: a generator maps (z, *, train) to images in (-1, 1), a discriminator maps
(x, *, train) to (logits, features). What the paper prescribes is here: strided convolutions in place of pooling, batch
normalisation everywhere but at the generator's output and the discriminator's input, no hidden dense layer, relu in the
one and leaky relu in the other, tanh at the end, kernels drawn from N(0, 0.02^2).

Small and large are a matter of `features`. Sides must be divisible by 2 ** stages:

    8x8        two stages, maps of 2x2 at the smallest     generator (64, 32), discriminator (32, 64)
    28x28      two stages, 7x7                             (128, 64), (64, 128)
    32x32      three stages, 4x4                           (256, 128, 64), (64, 128, 256)

Source: Radford, Metz & Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
    Networks", ICLR 2016, arXiv:1511.06434.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.networks import convnet
from gm_jax.networks.gan_mlp import leaky_relu
from gm_jax.networks.normalization import BatchNorm, NormFactory, SpectralNorm
from gm_jax.ops.convolution import conv
from gm_jax.types import Array

_KERNEL_INIT = nn.initializers.normal(0.02)


class FractionallyStridedConv(nn.Module):
    """Transposed convolution with a 4x4 kernel and stride 2: [B, H, W, C] -> [B, 2H, 2W, F].

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
        batch, height, width, channels = x.shape
        kernel = self.param("kernel", _KERNEL_INIT, (4, 4, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        # Of the four taps on an axis an even output pixel meets the first and the third, an odd one the second and the
        # fourth: a 2x2 convolution over the zero-padded map gives as channels two pixels of an axis, the odd one of a
        # place and the even one of the next, and what lies outside is cut off. On CPU, with its gradient, it is at
        # least four times as fast as `nn.ConvTranspose` (jax 0.10.2).
        taps = kernel.reshape(2, 2, 2, 2, channels, self.features)[:, ::-1, :, ::-1].transpose(0, 2, 4, 1, 3, 5)
        h = conv(x, taps.reshape(2, 2, channels, 4 * self.features), padding=((1, 1), (1, 1)))
        h = h.reshape(batch, height + 1, width + 1, 2, 2, self.features).transpose(0, 1, 3, 2, 4, 5)
        y = h.reshape(batch, 2 * height + 2, 2 * width + 2, self.features)[:, 1:-1, 1:-1]
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)


class DCGANGenerator(nn.Module):
    """x~ = G(z): [B, Z] -> [B, H, W, C] in (-1, 1).

    Attributes:
        event_shape: (H, W, C) of one image.
        features: channels of each stage from the latents outwards: the first is that of the smallest map.
        norm: factory of the normalisation of each layer but the last; None for none.
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
            UserError: event_shape is no image's, or the stages cannot reach its sides.
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
    """l = logit of D(x), and the features it is made of: [B, H, W, C] -> ([B], [B, F]).

    Attributes:
        features: channels of each stage from the image inwards; F is the last times the size of the smallest map.
        norm: factory of the normalisation of each stage but the first; None for none, as a critic must have it.
        spectral_norm: whether every kernel but minibatch discrimination's is divided by its largest singular value.
        minibatch_discrimination: a module [B, F] -> [B, F'] that compares the examples of a batch; None for none.
        output_bias: whether the logit has one; in a Wasserstein critic it cancels.
        dtype: precision of the computation.
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
            UserError: x are no images, or the stages cannot halve their sides.
        """
        convnet.check_sides(x.shape[1:], stages=len(self.features))

        def apply(layer: nn.Module, h: Array) -> Array:
            return SpectralNorm(layer)(h, train=train) if self.spectral_norm else layer(h)

        h = x
        for stage, width in enumerate(self.features):
            normalized = self.norm is not None and stage > 0
            layer = nn.Conv(
                width,
                (4, 4),
                strides=(2, 2),
                padding=((1, 1), (1, 1)),
                use_bias=not normalized,
                kernel_init=_KERNEL_INIT,
                dtype=self.dtype,
            )
            h = apply(layer, h)
            h = leaky_relu(self.norm()(h, train=train) if normalized else h)
        features = h.reshape(h.shape[0], -1)
        h = features if self.minibatch_discrimination is None else self.minibatch_discrimination(features)
        logits = apply(nn.Dense(1, self.output_bias, kernel_init=_KERNEL_INIT, dtype=self.dtype), h)
        return jnp.squeeze(logits, axis=-1), features
