"""PixelCNN and gated PixelCNN: networks of images by convolutions that respect raster order.

PixelCNN (van den Oord, Kalchbrenner & Kavukcuoglu, ICML 2016, arXiv:1601.06759, table 1) is a mask-A layer followed by
residual blocks of mask-B layers. Stacked masks leave a blind spot: a pixel never sees the region above and to the right
beyond the diagonal that k x k kernels can climb.

Gated PixelCNN (van den Oord et al., NeurIPS 2016, arXiv:1606.05328) has two stacks. The vertical stack v sees whole
rows, including its own. Shifted down by a row it feeds the horizontal stack h, which sees its own row to the left. Each
layer is

    a_v = W_v * v + b_v(y),    a_h = W_h * h + U shift_down(a_v) + b_h(y)                           (1)
    v  <- gate(a_v),           h  <- h + R gate(a_h),       gate(a, b) = tanh(a) sigmoid(b)         (2)

with * the convolutions of `masked_conv` and y a class label. The mask-A layer omits the residual "h +", which would
pass on the level that is predicted. Together the stacks see every earlier pixel within reach: there is no blind spot.

Dropout, which neither paper has, drops the input of each block's last product: of R in (2).

`pixel_network` describes the outputs and the cached evaluation.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.networks.dropout import KeyedDropout
from gm_jax.networks.label_bias import LabelBias, add_bias, halves
from gm_jax.networks.masked_conv import (
    MaskedConv,
    MaskedConvCache,
    MaskedDense,
    RowConv,
    UpperConv,
    at_column,
    colors,
    shift_down,
    write_level,
)
from gm_jax.networks.pixel_network import PixelNetwork, Readout, ResidualPixelNetwork
from gm_jax.types import Array


class ResidualBlockCache(NamedTuple):
    """A block's cache: its convolution's cache and b(y) [n, F / 2]."""

    conv: MaskedConvCache
    bias: Array | None


class ResidualBlock(nn.Module):
    """A residual block of PixelCNN: a projection to half the features, a mask-B convolution, a projection back.

    Attributes:
        features: F.
        channels: C.
        size: k.
        num_classes: number of classes of the labels; None for a network without labels.
        dtype: precision of the computation.
        dropout: dropout rate in training.
    """

    features: int
    channels: int
    size: int
    num_classes: int | None = None
    dtype: DTypeLike | None = None
    dropout: float = 0.0

    def setup(self) -> None:
        wide, narrow = (colors(width, self.channels) for width in (self.features, self.features // 2))
        self.narrow = MaskedDense(wide, narrow, dtype=self.dtype)
        self.conv = MaskedConv(self.size, narrow, narrow, dtype=self.dtype)
        self.wide = MaskedDense(narrow, wide, dtype=self.dtype)
        self.label_bias = LabelBias(self.num_classes, len(narrow), dtype=self.dtype)
        self.drop = KeyedDropout(self.dropout)

    def __call__(self, x: Array, image: Array, label: Array | None) -> Array:
        """Maps x [B, H, W, F] to the same shape; it does not read the image."""
        y = self.conv(self._before(x))
        return self._after(x, add_bias(y, self.label_bias(label)))

    def begin(self, n: int, width: int, label: Array | None, dtype: DTypeLike) -> ResidualBlockCache:
        """Returns the cache before the first row."""
        return ResidualBlockCache(self.conv.begin(n, width, dtype), self.label_bias(label))

    def begin_row(self, cache: ResidualBlockCache, row: Array, image_row: Array) -> ResidualBlockCache:
        """Computes the contribution of the rows above to the next row."""
        return cache._replace(conv=self.conv.begin_row(cache.conv))

    def step(self, cache: ResidualBlockCache, column: Array, x: Array) -> tuple[ResidualBlockCache, Array]:
        """Maps one pixel x [n, F] to (cache, [n, F])."""
        conv = self.conv.write(cache.conv, column, self._before(x))
        return cache._replace(conv=conv), self._after(x, add_bias(self.conv.at(conv, column), cache.bias))

    def _before(self, x: Array) -> Array:
        return nn.relu(self.narrow(nn.relu(x)))

    def _after(self, x: Array, y: Array) -> Array:
        return x + self.wide(self.drop(nn.relu(y)))


class PixelCNN(ResidualPixelNetwork):
    """PixelCNN: levels [B, H, W, C] -> outputs [B, H, W, C, P].

    It also has the fields of `PixelNetwork`.

    Attributes:
        features: width of the trunk, twice the paper's h.
        layers: number of residual blocks.
        first_size: k of the mask-A layer.
        size: k of the other layers.
        dropout: dropout rate in training.
    """

    features: int = 64
    layers: int = 8
    size: int = 3
    dropout: float = 0.0

    def setup(self) -> None:
        super().setup()
        settings = (self.event_shape[2], self.size, self.num_classes, self.dtype, self.dropout)
        self.blocks = [ResidualBlock(self.features, *settings) for _ in range(self.layers)]

    def trunk_features(self) -> int:
        """Returns `features`."""
        return self.features

    def residual_layers(self) -> Sequence[ResidualBlock]:
        """Returns the residual blocks."""
        return self.blocks


class GatedLayerCache(NamedTuple):
    """A gated layer's cache.

    Attributes:
        history: [n, k // 2, W, I] inputs of the vertical stack, up to the row above.
        row: [n, k // 2 + W, I] inputs of the horizontal stack, as far as they are written.
        context: [n, W, 2F] the terms of a_h other than W_h * h.
        bias: b_v(y) and b_h(y) concatenated, [n, 4F].
    """

    history: Array
    row: Array
    context: Array
    bias: Array | None


class GatedLayer(nn.Module):
    """A layer of the gated PixelCNN, eqs. (1) and (2): (v, h) -> (v, h).

    Attributes:
        features: F.
        channels: C.
        size: k.
        first: whether this is the mask-A layer, whose v and h are the image.
        num_classes: number of classes of the labels; None for a network without labels.
        dtype: precision of the computation.
        dropout: dropout rate in training.
    """

    features: int
    channels: int
    size: int
    first: bool = False
    num_classes: int | None = None
    dtype: DTypeLike | None = None
    dropout: float = 0.0

    def setup(self) -> None:
        outputs = colors(self.features, self.channels)
        inputs = colors(self.channels, self.channels) if self.first else outputs
        gates = colors(self.features, self.channels, repeats=2)
        self.vertical = UpperConv(len(gates), self.size // 2 + 1, self.size, dtype=self.dtype)
        # The vertical stack and U need no colour masks: they see only rows above, whose colours are all known.
        self.link = nn.Dense(len(gates), use_bias=False, dtype=self.dtype)
        self.horizontal = RowConv(self.size, inputs, gates, strict=self.first, dtype=self.dtype)
        self.residual = MaskedDense(outputs, outputs, dtype=self.dtype)
        self.label_bias = LabelBias(self.num_classes, 2 * len(gates), dtype=self.dtype)
        self.drop = KeyedDropout(self.dropout)

    def __call__(self, v: Array, h: Array, label: Array | None) -> tuple[Array, Array]:
        """Maps v and h [B, H, W, I] and labels [B] to (v, h) [B, H, W, F]."""
        bias_v, bias_h = halves(self.label_bias(label))
        a_v = add_bias(self.vertical(v), bias_v)
        a_h = add_bias(self.horizontal(h) + self.link(shift_down(a_v)), bias_h)
        update = self.residual(self.drop(_gate(a_h)))
        return _gate(a_v), update if self.first else h + update

    def begin(self, n: int, width: int, label: Array | None, dtype: DTypeLike) -> GatedLayerCache:
        """Returns the cache before the first row."""
        inputs = self.channels if self.first else self.features
        return GatedLayerCache(
            history=self.vertical.begin(n, width, inputs, dtype),
            row=self.horizontal.begin(n, width, dtype),
            context=jnp.zeros((n, width, 2 * self.features), dtype),
            bias=self.label_bias(label),
        )

    def begin_row(self, cache: GatedLayerCache, row: Array, v: Array) -> tuple[GatedLayerCache, Array]:
        """Evaluates the vertical stack and its part of h on the row above: v [n, W, I] -> (cache, [n, W, F])."""
        bias_v, bias_h = halves(cache.bias)
        history, a_v = self.vertical.next_row(cache.history, v)
        # Above the first row a_v is zero, without the bias.
        a_v = jnp.where(row > 0, add_bias(a_v, bias_v), 0.0)
        return cache._replace(history=history, context=add_bias(self.link(a_v), bias_h)), _gate(a_v)

    def step(self, cache: GatedLayerCache, column: Array, h: Array) -> tuple[GatedLayerCache, Array]:
        """Evaluates the horizontal stack at one pixel: h [n, F] -> (cache, [n, F])."""
        cache = cache._replace(row=self.horizontal.write(cache.row, column, h))
        return cache, h + self.update_at(cache, column)

    def update_at(self, cache: GatedLayerCache, column: Array) -> Array:
        """Computes R gate(a_h) [n, F] at one pixel of a row that is written up to that pixel."""
        return self.residual(_gate(self.horizontal.at(cache.row, column) + at_column(cache.context, column)))


class GatedPixelCNN(PixelNetwork):
    """Gated PixelCNN: levels [B, H, W, C] -> outputs [B, H, W, C, P].

    It also has the fields of `PixelNetwork`.

    Attributes:
        features: F, width of both stacks.
        layers: number of gated layers after the first.
        first_size: k of the mask-A layer.
        size: k of the other layers.
        dropout: dropout rate in training.
    """

    features: int = 64
    layers: int = 8
    first_size: int = 7
    size: int = 3
    dropout: float = 0.0

    def setup(self) -> None:
        channels = self.event_shape[2]
        settings = {"num_classes": self.num_classes, "dtype": self.dtype, "dropout": self.dropout}
        first = GatedLayer(self.features, channels, self.first_size, first=True, **settings)
        rest = [GatedLayer(self.features, channels, self.size, **settings) for _ in range(self.layers)]
        self.stack = [first, *rest]
        self.readout = Readout(colors(self.features, channels), channels, self.outputs_per_dim, self.dtype)

    def __call__(self, x: Array, label: Array | None = None) -> Array:
        """Maps levels x [B, H, W, C] and labels [B] to outputs [B, H, W, C, P]."""
        v = h = self.scale(x)
        for layer in self.stack:
            v, h = layer(v, h, label)
        return self.readout(h)

    def begin(self, n: int, label: Array | None = None) -> tuple[GatedLayerCache, ...]:
        """Returns the cache before the first row of n images."""
        return tuple(layer.begin(n, self.event_shape[1], label, self.compute_dtype()) for layer in self.stack)

    def begin_row(self, cache: tuple[GatedLayerCache, ...], row: Array, previous: Array) -> tuple[GatedLayerCache, ...]:
        """Evaluates the vertical stack for one row; `previous` [n] is the last level above."""
        width = self.event_shape[1]
        v = write_level(cache[0].row, jnp.int32(-1), self.scale(previous), width=width)[:, -width:]
        v = jnp.where(row > 0, v, 0.0)
        parts = []
        for layer, part in zip(self.stack, cache, strict=True):
            part, v = layer.begin_row(part, row, v)
            parts.append(part)
        return tuple(parts)

    def step(
        self, cache: tuple[GatedLayerCache, ...], i: Array, previous: Array
    ) -> tuple[tuple[GatedLayerCache, ...], Array]:
        """Computes the outputs [n, P] of position i, given the level [n] before it."""
        column = self.column_of(i)
        first = cache[0]._replace(row=self.write_previous(cache[0].row, i, previous))
        h = self.stack[0].update_at(first, column)
        parts = [first]
        for layer, part in zip(self.stack[1:], cache[1:], strict=True):
            part, h = layer.step(part, column, h)
            parts.append(part)
        return tuple(parts), self.output_at(self.readout(h), i)


def _gate(a: Array) -> Array:
    """Splits a [..., 2F] into values and gates and returns tanh(value) sigmoid(gate) [..., F]."""
    value, gate = jnp.split(a, 2, axis=-1)
    return jnp.tanh(value) * jax.nn.sigmoid(gate)
