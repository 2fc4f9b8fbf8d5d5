"""PixelCNN and gated PixelCNN: the conditionals of all sub-pixels of an image by convolutions that cannot look ahead.

Both map levels [B, H, W, C] to outputs [B, H, W, C, P], the P parameters of p(x_i | x_<i) in raster order, channels
fastest. Neither has batch normalisation, whose statistics would hold the future of other pixels.

PixelCNN (van den Oord, Kalchbrenner & Kavukcuoglu, ICML 2016, arXiv:1601.06759, table 1): a mask-A layer, residual
blocks of mask-B layers. Stacked masks leave a blind spot: what lies above and to the right, beyond the diagonal that
k x k kernels can climb, is never seen.

Gated PixelCNN (van den Oord et al., NeurIPS 2016, arXiv:1606.05328): two stacks. The vertical one, v, sees whole rows,
its own included; moved down by a row it feeds the horizontal one, h, which sees its own row to the left. Each layer is

    a_v = W_v * v + b_v(y),    a_h = W_h * h + U shift_down(a_v) + b_h(y)                           (1)
    v  <- gate(a_v),           h  <- h + R gate(a_h),       gate(a, b) = tanh(a) sigmoid(b)         (2)

with * the convolutions of `masked_conv`, y a class label, and no h + in the mask-A layer: the sum would hand it the
very level that it is to predict. Together the stacks see every earlier pixel within reach: there is no blind spot.

Cached evaluation (`begin`, `begin_row`, `step`): all that depends on the rows above is done once a row. A step is that
of a sub-pixel and computes its whole pixel: of three colours thrice what the one needs, which is little beside a row's.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.networks.label_bias import LabelBias, add_bias, halves
from gm_jax.networks.masked_conv import (
    Colors,
    MaskedConv,
    MaskedConvCache,
    MaskedDense,
    RowConv,
    UpperConv,
    at_column,
    colors,
    scale_levels,
    shift_down,
    write_level,
)
from gm_jax.types import Array


class Readout(nn.Module):
    """From the last features to the outputs, by two masked 1 x 1 convolutions: [..., F] -> [..., C, P].

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
        outputs = colors(self.channels * self.outputs_per_dim, self.channels)
        x = MaskedDense(self.inputs, self.inputs, dtype=self.dtype)(nn.relu(x))
        x = MaskedDense(self.inputs, outputs, dtype=self.dtype)(nn.relu(x))
        return x.reshape(*x.shape[:-1], self.channels, self.outputs_per_dim)


class ResidualBlockCache(NamedTuple):
    """What a block keeps: its convolution's cache and b(y) [n, F / 2]."""

    conv: MaskedConvCache
    bias: Array | None


class ResidualBlock(nn.Module):
    """A residual block of PixelCNN: to half the features, a mask-B convolution, and back.

    Attributes:
        features: F.
        channels: C.
        size: k.
        num_classes: classes; None for none.
        dtype: precision of the computation.
    """

    features: int
    channels: int
    size: int
    num_classes: int | None = None
    dtype: DTypeLike | None = None

    def setup(self):
        wide, narrow = (colors(width, self.channels) for width in (self.features, self.features // 2))
        self.narrow = MaskedDense(wide, narrow, dtype=self.dtype)
        self.conv = MaskedConv(self.size, narrow, narrow, dtype=self.dtype)
        self.wide = MaskedDense(narrow, wide, dtype=self.dtype)
        self.label_bias = LabelBias(self.num_classes, len(narrow), dtype=self.dtype)

    def __call__(self, x: Array, label: Array | None) -> Array:
        y = self.conv(self._before(x))
        return self._after(x, add_bias(y, self.label_bias(label)))

    def begin(self, n: int, width: int, label: Array | None, dtype: DTypeLike) -> ResidualBlockCache:
        """The cache before the first row."""
        return ResidualBlockCache(self.conv.begin(n, width, dtype), self.label_bias(label))

    def begin_row(self, cache: ResidualBlockCache) -> ResidualBlockCache:
        """What the rows above give to the next."""
        return cache._replace(conv=self.conv.begin_row(cache.conv))

    def step(self, cache: ResidualBlockCache, column: Array, x: Array) -> tuple[ResidualBlockCache, Array]:
        """One pixel: x [n, F] -> [n, F]."""
        conv = self.conv.write(cache.conv, column, self._before(x))
        return cache._replace(conv=conv), self._after(x, add_bias(self.conv.at(conv, column), cache.bias))

    def _before(self, x: Array) -> Array:
        return nn.relu(self.narrow(nn.relu(x)))

    def _after(self, x: Array, y: Array) -> Array:
        return x + self.wide(nn.relu(y))


class PixelCNNCache(NamedTuple):
    """What PixelCNN keeps: the caches of its first layer and of each block."""

    first: MaskedConvCache
    blocks: tuple[ResidualBlockCache, ...]


class PixelCNN(nn.Module):
    """PixelCNN: levels [B, H, W, C] -> outputs [B, H, W, C, P].

    Attributes:
        event_shape: (H, W, C) of one image.
        levels: L; levels are scaled to [-1, 1].
        outputs_per_dim: P.
        features: width of the trunk; twice the paper's h.
        layers: residual blocks.
        first_size: k of the mask-A layer.
        size: k of the others.
        num_classes: classes of the label; None for none.
        dtype: precision of the computation.
    """

    event_shape: tuple[int, int, int]
    levels: int
    outputs_per_dim: int
    features: int = 64
    layers: int = 8
    first_size: int = 7
    size: int = 3
    num_classes: int | None = None
    dtype: DTypeLike | None = None

    def setup(self):
        channels = self.event_shape[2]
        trunk = colors(self.features, channels)
        self.first = MaskedConv(self.first_size, colors(channels, channels), trunk, strict=True, dtype=self.dtype)
        self.blocks = [
            ResidualBlock(self.features, channels, self.size, self.num_classes, self.dtype) for _ in range(self.layers)
        ]
        self.readout = Readout(trunk, channels, self.outputs_per_dim, self.dtype)

    def __call__(self, x: Array, label: Array | None = None) -> Array:
        x = self.first(scale_levels(x, self.levels, self.dtype))
        for block in self.blocks:
            x = block(x, label)
        return self.readout(x)

    def begin(self, n: int, label: Array | None = None) -> PixelCNNCache:
        """The cache before the first row of n images."""
        width, dtype = self.event_shape[1], self.dtype or jnp.result_type(float)
        blocks = tuple(block.begin(n, width, label, dtype) for block in self.blocks)
        return PixelCNNCache(self.first.begin(n, width, dtype), blocks)

    def begin_row(self, cache: PixelCNNCache, row: Array, previous: Array) -> PixelCNNCache:
        """What the rows above give to the next; `previous` [n] is the last level above."""
        # Above the first row there are zeros, not levels.
        last = jnp.where(row > 0, scale_levels(previous, self.levels, self.dtype), 0.0)
        first = cache.first._replace(row=write_level(cache.first.row, jnp.int32(-1), last, width=self.event_shape[1]))
        blocks = tuple(block.begin_row(part) for block, part in zip(self.blocks, cache.blocks, strict=True))
        return PixelCNNCache(self.first.begin_row(first), blocks)

    def step(self, cache: PixelCNNCache, i: Array, previous: Array) -> tuple[PixelCNNCache, Array]:
        """The outputs [n, P] of position i, given the level [n] before it."""
        _, width, channels = self.event_shape
        column = i // channels % width
        level = scale_levels(previous, self.levels, self.dtype)
        first = cache.first._replace(row=write_level(cache.first.row, i - 1, level, width=width))
        x = self.first.at(first, column)
        blocks = []
        for block, part in zip(self.blocks, cache.blocks, strict=True):
            part, x = block.step(part, column, x)
            blocks.append(part)
        return PixelCNNCache(first, tuple(blocks)), at_column(self.readout(x), i % channels)


class GatedLayerCache(NamedTuple):
    """What a gated layer keeps.

    Attributes:
        history: [n, k // 2, W, I] inputs of the vertical stack, up to the row above.
        row: [n, k // 2 + W, I] inputs of the horizontal stack, as far as they are written.
        context: [n, W, 2F] all of a_h but W_h * h.
        bias: b_v(y) and b_h(y) side by side, [n, 4F].
    """

    history: Array
    row: Array
    context: Array
    bias: Array | None


class GatedLayer(nn.Module):
    """Equations (1) and (2): (v, h) -> (v, h).

    Attributes:
        features: F.
        channels: C.
        size: k.
        first: the mask-A layer, whose v and h are the image.
        num_classes: classes; None for none.
        dtype: precision of the computation.
    """

    features: int
    channels: int
    size: int
    first: bool = False
    num_classes: int | None = None
    dtype: DTypeLike | None = None

    def setup(self):
        outputs = colors(self.features, self.channels)
        inputs = colors(self.channels, self.channels) if self.first else outputs
        gates = colors(self.features, self.channels, repeats=2)
        self.vertical = UpperConv(len(gates), self.size // 2 + 1, self.size, dtype=self.dtype)
        # The vertical stack sees rows above alone, where every colour is known: it needs no colours, nor does U.
        self.link = nn.Dense(len(gates), use_bias=False, dtype=self.dtype)
        self.horizontal = RowConv(self.size, inputs, gates, strict=self.first, dtype=self.dtype)
        self.residual = MaskedDense(outputs, outputs, dtype=self.dtype)
        self.label_bias = LabelBias(self.num_classes, 2 * len(gates), dtype=self.dtype)

    def __call__(self, v: Array, h: Array, label: Array | None) -> tuple[Array, Array]:
        bias_v, bias_h = halves(self.label_bias(label))
        a_v = add_bias(self.vertical(v), bias_v)
        a_h = add_bias(self.horizontal(h) + self.link(shift_down(a_v)), bias_h)
        update = self.residual(_gate(a_h))
        return _gate(a_v), update if self.first else h + update

    def begin(self, n: int, width: int, label: Array | None, dtype: DTypeLike) -> GatedLayerCache:
        """The cache before the first row."""
        inputs = self.channels if self.first else self.features
        return GatedLayerCache(
            history=self.vertical.begin(n, width, inputs, dtype),
            row=self.horizontal.begin(n, width, dtype),
            context=jnp.zeros((n, width, 2 * self.features), dtype),
            bias=self.label_bias(label),
        )

    def begin_row(self, cache: GatedLayerCache, row: Array, v: Array) -> tuple[GatedLayerCache, Array]:
        """The vertical stack's row above the next, v [n, W, I] -> [n, W, F], and what it gives to h."""
        bias_v, bias_h = halves(cache.bias)
        history, a_v = self.vertical.next_row(cache.history, v)
        # Above the first row there are zeros, which a bias would fill.
        a_v = jnp.where(row > 0, add_bias(a_v, bias_v), 0.0)
        return cache._replace(history=history, context=add_bias(self.link(a_v), bias_h)), _gate(a_v)

    def step(self, cache: GatedLayerCache, column: Array, h: Array) -> tuple[GatedLayerCache, Array]:
        """The horizontal stack at one pixel: h [n, F] -> [n, F]."""
        cache = cache._replace(row=self.horizontal.write(cache.row, column, h))
        return cache, h + self.update_at(cache, column)

    def update_at(self, cache: GatedLayerCache, column: Array) -> Array:
        """R gate(a_h) at one pixel, [n, F], of a row that is written as far as the pixel."""
        return self.residual(_gate(self.horizontal.at(cache.row, column) + at_column(cache.context, column)))


class GatedPixelCNN(nn.Module):
    """Gated PixelCNN: levels [B, H, W, C] -> outputs [B, H, W, C, P].

    Attributes:
        event_shape: (H, W, C) of one image.
        levels: L; levels are scaled to [-1, 1].
        outputs_per_dim: P.
        features: F, width of both stacks.
        layers: gated layers after the first.
        first_size: k of the mask-A layer.
        size: k of the others.
        num_classes: classes of the label; None for none.
        dtype: precision of the computation.
    """

    event_shape: tuple[int, int, int]
    levels: int
    outputs_per_dim: int
    features: int = 64
    layers: int = 8
    first_size: int = 7
    size: int = 3
    num_classes: int | None = None
    dtype: DTypeLike | None = None

    def setup(self):
        channels = self.event_shape[2]
        settings = {"num_classes": self.num_classes, "dtype": self.dtype}
        first = GatedLayer(self.features, channels, self.first_size, first=True, **settings)
        rest = [GatedLayer(self.features, channels, self.size, **settings) for _ in range(self.layers)]
        self.stack = [first, *rest]
        self.readout = Readout(colors(self.features, channels), channels, self.outputs_per_dim, self.dtype)

    def __call__(self, x: Array, label: Array | None = None) -> Array:
        v = h = scale_levels(x, self.levels, self.dtype)
        for layer in self.stack:
            v, h = layer(v, h, label)
        return self.readout(h)

    def begin(self, n: int, label: Array | None = None) -> tuple[GatedLayerCache, ...]:
        """The cache before the first row of n images."""
        dtype = self.dtype or jnp.result_type(float)
        return tuple(layer.begin(n, self.event_shape[1], label, dtype) for layer in self.stack)

    def begin_row(self, cache: tuple[GatedLayerCache, ...], row: Array, previous: Array):
        """The vertical stack, one row; `previous` [n] is the last level above."""
        width = self.event_shape[1]
        level = scale_levels(previous, self.levels, self.dtype)
        v = write_level(cache[0].row, jnp.int32(-1), level, width=width)[:, -width:]
        v = jnp.where(row > 0, v, 0.0)
        layers = []
        for layer, part in zip(self.stack, cache, strict=True):
            part, v = layer.begin_row(part, row, v)
            layers.append(part)
        return tuple(layers)

    def step(self, cache: tuple[GatedLayerCache, ...], i: Array, previous: Array):
        """The outputs [n, P] of position i, given the level [n] before it."""
        _, width, channels = self.event_shape
        column = i // channels % width
        level = scale_levels(previous, self.levels, self.dtype)
        first = cache[0]._replace(row=write_level(cache[0].row, i - 1, level, width=width))
        h = self.stack[0].update_at(first, column)
        layers = [first]
        for layer, part in zip(self.stack[1:], cache[1:], strict=True):
            part, h = layer.step(part, column, h)
            layers.append(part)
        return tuple(layers), at_column(self.readout(h), i % channels)


def _gate(a: Array) -> Array:
    value, gate = jnp.split(a, 2, axis=-1)
    return jnp.tanh(value) * jax.nn.sigmoid(gate)
