"""Energies, or logits, of points and images: no normalisation layer, so that an example's energy is its own.

The last layer of an energy has no bias, because a constant cancels in the density. Swish keeps the energy smooth,
because Langevin dynamics follows its gradient (Du & Mordatch, NeurIPS 2019, arXiv:1903.08689; Nijkamp et al., AAAI
2020, arXiv:1903.12370).
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.networks import convnet
from gm_jax.networks.convolution import Conv
from gm_jax.networks.normalization import SpectralNorm
from gm_jax.types import Array


class EnergyMLP(nn.Module):
    """A fully connected energy: [B, ...] -> [B], or [B, num_classes] logits.

    Attributes:
        hidden: width of each hidden layer.
        spectral_norm: divides every kernel by its largest singular value.
        dtype: precision of the computation; energies and logits are float32 at least.
        num_classes: C, for logits in place of an energy.
    """

    hidden: tuple[int, ...]
    spectral_norm: bool = False
    dtype: DTypeLike | None = None
    num_classes: int | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps floats x [B, ...] to energies [B], or logits [B, C]."""
        h = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            h = nn.swish(_apply(nn.Dense(width, dtype=self.dtype), h, train=train, spectral_norm=self.spectral_norm))
        return _readout(h, self.num_classes, train=train, spectral_norm=self.spectral_norm)


class EnergyConvNet(nn.Module):
    """A convolutional energy: [B, H, W, C] -> [B], or [B, num_classes] logits; each stage halves both sides.

    Attributes:
        features: channels of each stage.
        spectral_norm: divides every kernel by its largest singular value.
        dtype: precision of the computation; energies and logits are float32 at least.
        num_classes: for logits in place of an energy.
    """

    features: tuple[int, ...]
    spectral_norm: bool = False
    dtype: DTypeLike | None = None
    num_classes: int | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps images in [-1, 1], [B, H, W, C], to energies [B], or logits [B, num_classes].

        Raises:
            UserError: x is not a batch of images, or the stages cannot halve its sides.
        """
        convnet.check_sides(x.shape[1:], stages=len(self.features))
        settings = {"train": train, "spectral_norm": self.spectral_norm}
        h = nn.swish(_apply(Conv(self.features[0], (3, 3), dtype=self.dtype), x, **settings))
        for width in self.features:
            layer = Conv(width, (4, 4), strides=(2, 2), padding=((1, 1), (1, 1)), dtype=self.dtype)
            h = nn.swish(_apply(layer, h, **settings))
        return _readout(h.reshape(h.shape[0], -1), self.num_classes, **settings)


def _readout(h: Array, num_classes: int | None, *, train: bool, spectral_norm: bool) -> Array:
    # In float32 at least: an energy of 100 nats in bfloat16 is a multiple of half a nat.
    h = h.astype(jnp.promote_types(h.dtype, jnp.float32))
    # The bias of an energy would cancel in the density; those of logits are the frequencies of the classes.
    layer = nn.Dense(num_classes or 1, use_bias=num_classes is not None)
    outputs = _apply(layer, h, train=train, spectral_norm=spectral_norm)
    return outputs if num_classes is not None else outputs[:, 0]


def _apply(layer: nn.Module, h: Array, *, train: bool, spectral_norm: bool) -> Array:
    return SpectralNorm(layer)(h, train=train) if spectral_norm else layer(h)
