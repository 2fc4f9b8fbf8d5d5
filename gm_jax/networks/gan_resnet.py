"""Residual generator and discriminator of WGAN-GP and SNGAN for small images; they keep the contract of `gan_mlp.py`.

    up:     x -> conv1x1(double(x)) + conv(relu(norm(conv(double(relu(norm(x)))))))                       (1)
    down:   x -> halve(conv1x1(x)) + halve(conv(relu(norm(conv(relu(norm(x)))))))                         (2)
    plain:  x -> x + conv(relu(norm(conv(relu(norm(x))))))                                                (3)
    first:  x -> conv1x1(halve(x)) + halve(conv(relu(norm(conv(x)))))                                     (4)

conv is 3x3, double repeats each place four times, halve averages 2 x 2 places. The generator is a dense layer, some
blocks (1), and tanh(conv(relu(norm))). The discriminator is the blocks (4), (2), (3), (3), a relu, the sum or the mean
over the places, which are its features, and a dense layer. All blocks of a network have equally many channels.

Source: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, arXiv:1704.00028: 128
    channels, the mean over the places. Miyato et al., "Spectral Normalization for Generative Adversarial Networks",
    ICLR 2018, arXiv:1802.05957, table 4: 256 and 128 channels, the sum.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.networks import convnet
from gm_jax.networks.convolution import Conv
from gm_jax.networks.normalization import BatchNorm, NormFactory, SpectralNorm
from gm_jax.networks.unet import halve, upsample_nearest
from gm_jax.types import Array

_HALVINGS = 2  # of the discriminator

_RESIDUAL_INIT = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")
_GLOROT = nn.initializers.glorot_uniform()


class ResNetGenerator(nn.Module):
    """The generator x~ = G(z): [B, Z] -> [B, H, W, C] in (-1, 1).

    Attributes:
        event_shape: (H, W, C) of one image.
        features: channels of all blocks.
        stages: blocks (1), each of which doubles both sides.
        norm: factory of the normalisations; None disables them.
        dtype: precision of the computation.
    """

    event_shape: tuple[int, ...]
    features: int
    stages: int
    norm: NormFactory | None = BatchNorm
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, z: Array, *, train: bool) -> Array:
        """Maps z [B, Z] to [B, H, W, C].

        Raises:
            UserError: event_shape is not the shape of an image, or the stages cannot reach its sides.
        """
        convnet.check_sides(self.event_shape, stages=self.stages)
        height, width, channels = self.event_shape
        first = (height // 2**self.stages, width // 2**self.stages, self.features)
        h = nn.Dense(math.prod(first), kernel_init=_GLOROT, dtype=self.dtype, name="dense")(z).reshape(-1, *first)
        for stage in range(self.stages):
            settings = {"before": upsample_nearest, "norm": self.norm, "dtype": self.dtype}
            h = ResidualBlock(self.features, **settings, name=f"block_{stage}")(h, train=train)
        h = nn.relu(h if self.norm is None else self.norm()(h, train=train))
        return jnp.tanh(Conv(channels, (3, 3), kernel_init=_GLOROT, dtype=self.dtype, name="last")(h))


class ResNetDiscriminator(nn.Module):
    """The discriminator: the logit of D(x) and the features before it, [B, H, W, C] -> ([B], [B, features]).

    Attributes:
        features: channels of all blocks.
        pool: of the places, (h [B, H, W, F], axis) -> [B, F]: `jnp.sum` or `jnp.mean`.
        norm: factory of the normalisations; None disables them, as critics require.
        spectral_norm: divides every kernel by its largest singular value.
        output_bias: whether the logit has a bias; in a Wasserstein critic it cancels.
        dtype: precision of the computation; both outputs are float32 at least.
    """

    features: int
    pool: Callable[..., Array] = jnp.sum
    norm: NormFactory | None = None
    spectral_norm: bool = False
    output_bias: bool = True
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> tuple[Array, Array]:
        """Maps images in [-1, 1], [B, H, W, C], to (logits [B], features [B, F]).

        Raises:
            UserError: x is not a batch of images, or its sides cannot be halved twice.
        """
        convnet.check_sides(x.shape[1:], stages=_HALVINGS)
        shared = {"norm": self.norm, "spectral_norm": self.spectral_norm, "dtype": self.dtype}
        blocks = (
            ResidualBlock(self.features, after=halve, first=True, **shared, name="block_0"),
            ResidualBlock(self.features, after=halve, **shared, name="block_1"),
            *(ResidualBlock(self.features, **shared, name=f"block_{i}") for i in (2, 3)),
        )
        h = x
        for block in blocks:
            h = block(h, train=train)
        # The last layer and what losses read are float32 at least.
        features = self.pool(nn.relu(h).astype(jnp.promote_types(h.dtype, jnp.float32)), axis=(1, 2))
        dense = nn.Dense(1, self.output_bias, kernel_init=_GLOROT)
        logits = SpectralNorm(dense)(features, train=train) if self.spectral_norm else dense(features)
        return jnp.squeeze(logits, axis=-1), features


class ResidualBlock(nn.Module):
    """A residual block, eqs. (1) to (4): [B, H, W, I] -> [B, H', W', features].

    Attributes:
        features: channels of the output.
        before: resampling before the first convolution; None for none.
        after: resampling after the second convolution; None for none.
        first: whether it takes an image, (4).
        norm: factory of the normalisations; None disables them.
        spectral_norm: divides every kernel by its largest singular value.
        dtype: precision of the computation.
    """

    features: int
    before: Callable[[Array], Array] | None = None
    after: Callable[[Array], Array] | None = None
    first: bool = False
    norm: NormFactory | None = None
    spectral_norm: bool = False
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps x [B, H, W, I] to [B, H', W', features]."""

        def conv(h: Array, size: int, init: nn.initializers.Initializer) -> Array:
            layer = Conv(self.features, (size, size), kernel_init=init, dtype=self.dtype)
            return SpectralNorm(layer)(h, train=train) if self.spectral_norm else layer(h)

        def activate(h: Array) -> Array:
            return nn.relu(h if self.norm is None else self.norm()(h, train=train))

        before, after = self.before or _unchanged, self.after or _unchanged
        h = conv(before(x if self.first else activate(x)), 3, _RESIDUAL_INIT)
        h = after(conv(activate(h), 3, _RESIDUAL_INIT))
        if self.before is None and self.after is None:
            return h + x
        if self.first:  # a mean and a 1x1 convolution commute: this order is cheaper, because an image has few channels
            return h + conv(after(x), 1, _GLOROT)
        return h + after(conv(before(x), 1, _GLOROT))


def _unchanged(h: Array) -> Array:
    return h
