"""The parts that PixelCNN, the gated PixelCNN and PixelRNN share: the fields, the scaling, the readout and the cache.

All three map levels [B, H, W, C] to outputs [B, H, W, C, P], the P parameters of p(x_i | x_<i) in raster order with
channels fastest. None has batch normalisation, whose statistics would contain later pixels of other images.

Cached evaluation: `begin` once, `begin_row` once per row, `step` once per sub-pixel. `begin_row` computes everything
that depends on the rows above. A step computes all colours of its pixel although it needs only one, which costs little
compared with a row.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.networks.masked_conv import (
    Colors,
    MaskedConv,
    MaskedConvCache,
    MaskedDense,
    at_column,
    colors,
    write_level,
)
from gm_jax.ops.levels import to_symmetric
from gm_jax.types import Array


class Readout(nn.Module):
    """Two masked 1 x 1 convolutions from the last features to the outputs: [..., F] -> [..., C, P].

    Attributes:
        inputs: colour of each input.
        channels: C.
        outputs_per_dim: P.
        dtype: precision of the computation.
    """

    inputs: Colors
    channels: int
    outputs_per_dim: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [..., F] to [..., C, P]."""
        outputs = colors(self.channels * self.outputs_per_dim, self.channels)
        x = MaskedDense(self.inputs, self.inputs, dtype=self.dtype)(nn.relu(x))
        x = MaskedDense(self.inputs, outputs, dtype=self.dtype)(nn.relu(x))
        return x.reshape(*x.shape[:-1], self.channels, self.outputs_per_dim)


class PixelNetwork(nn.Module):
    """The fields of every network of pixels, and the arithmetic of raster positions.

    Attributes:
        event_shape: (H, W, C) of one image.
        levels: L; levels are scaled to [-1, 1].
        outputs_per_dim: P.
        num_classes: number of classes of the labels; None for a network without labels.
        dtype: precision of the computation.
    """

    event_shape: tuple[int, int, int]
    levels: int
    outputs_per_dim: int
    num_classes: int | None = None
    dtype: DTypeLike | None = None

    def compute_dtype(self) -> DTypeLike:
        """Returns the dtype of the features and of the cache."""
        return self.dtype or jnp.result_type(float)

    def scale(self, x: Array) -> Array:
        """Scales levels 0 ... L - 1, integer or floating, to [-1, 1]."""
        return to_symmetric(x, levels=self.levels, dtype=self.compute_dtype())

    def column_of(self, i: Array) -> Array:
        """Returns the column of raster position i."""
        _, width, channels = self.event_shape
        return i // channels % width

    def write_previous(self, row: Array, i: Array, previous: Array) -> Array:
        """Writes the level [n] of position i - 1 to the image row [n, k // 2 + W, C]."""
        return write_level(row, i - 1, self.scale(previous), width=self.event_shape[1])

    def output_at(self, outputs: Array, i: Array) -> Array:
        """Selects the outputs [n, P] of position i from those of its pixel [n, C, P]."""
        return at_column(outputs, i % self.event_shape[2])


class ResidualLayer(Protocol):
    """A residual layer, evaluated on whole maps or pixel by pixel."""

    def __call__(self, x: Array, image: Array, label: Array | None) -> Array:
        """Maps x [B, H, W, F] to the same shape, given the scaled image [B, H, W, C] and labels [B]."""
        ...

    def begin(self, n: int, width: int, label: Array | None, dtype: DTypeLike) -> Any:
        """Returns the cache before the first row."""
        ...

    def begin_row(self, cache: Any, row: Array, image_row: Array) -> Any:
        """Computes the contribution of the rows above to a row; image_row [n, W, C] is the row above."""
        ...

    def step(self, cache: Any, column: Array, x: Array) -> tuple[Any, Array]:
        """Maps one pixel x [n, F] to (cache, [n, F])."""
        ...


class ResidualCache(NamedTuple):
    """The caches of the first layer and of each residual layer."""

    first: MaskedConvCache
    layers: tuple[Any, ...]


class ResidualPixelNetwork(PixelNetwork):
    """A mask-A convolution, residual layers and a readout: levels [B, H, W, C] -> outputs [B, H, W, C, P].

    A subclass defines the width of the trunk and the residual layers.

    It also has the fields of `PixelNetwork`.

    Attributes:
        first_size: k of the mask-A layer.
    """

    first_size: int = 7

    def setup(self) -> None:
        channels = self.event_shape[2]
        trunk = colors(self.trunk_features(), channels)
        self.first = MaskedConv(self.first_size, colors(channels, channels), trunk, strict=True, dtype=self.dtype)
        self.readout = Readout(trunk, channels, self.outputs_per_dim, self.dtype)

    def trunk_features(self) -> int:
        """Returns the width of the features between the first convolution and the readout."""
        raise NotImplementedError(f"{type(self).__name__} must state the width of its features")

    def residual_layers(self) -> Sequence[ResidualLayer]:
        """Returns the residual layers, from the first convolution to the readout."""
        raise NotImplementedError(f"{type(self).__name__} must list its residual layers")

    def __call__(self, x: Array, label: Array | None = None) -> Array:
        """Maps levels x [B, H, W, C] and labels [B] to outputs [B, H, W, C, P]."""
        image = self.scale(x)
        x = self.first(image)
        for layer in self.residual_layers():
            x = layer(x, image, label)
        return self.readout(x)

    def begin(self, n: int, label: Array | None = None) -> ResidualCache:
        """Returns the cache before the first row of n images."""
        width, dtype = self.event_shape[1], self.compute_dtype()
        layers = tuple(layer.begin(n, width, label, dtype) for layer in self.residual_layers())
        return ResidualCache(self.first.begin(n, width, dtype), layers)

    def begin_row(self, cache: ResidualCache, row: Array, previous: Array) -> ResidualCache:
        """Computes the contribution of the rows above to a row; `previous` [n] is the last level above."""
        width = self.event_shape[1]
        # Above the first row there are zeros, not levels.
        last = jnp.where(row > 0, self.scale(previous), 0.0)
        first = cache.first._replace(row=write_level(cache.first.row, jnp.int32(-1), last, width=width))
        image_row = first.row[:, -width:]
        pairs = zip(self.residual_layers(), cache.layers, strict=True)
        layers = tuple(layer.begin_row(part, row, image_row) for layer, part in pairs)
        return ResidualCache(self.first.begin_row(first), layers)

    def step(self, cache: ResidualCache, i: Array, previous: Array) -> tuple[ResidualCache, Array]:
        """Computes the outputs [n, P] of position i, given the level [n] before it."""
        column = self.column_of(i)
        first = cache.first._replace(row=self.write_previous(cache.first.row, i, previous))
        x, parts = self.first.at(first, column), []
        for layer, part in zip(self.residual_layers(), cache.layers, strict=True):
            part, x = layer.step(part, column, x)
            parts.append(part)
        return ResidualCache(first, tuple(parts)), self.output_at(self.readout(x), i)
