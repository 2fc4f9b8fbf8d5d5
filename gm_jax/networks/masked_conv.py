"""Convolutions that cannot look ahead in raster order: row by row, left to right, channel by channel.

Notation: a pixel (r, c); size k, an odd number; "colour" the data channel (red, green, blue) that a feature belongs to.

Each k x k masked convolution is the sum of two parts, which the cached samplers do at different times:

    above: the rows r - k/2 ... r - 1, all k columns around c: once a row                                  (1)
    left:  the pixels (r, c - k/2) ... (r, c - 1) and, as far as the mask lets it, (r, c): once a pixel    (2)

The mask is the one of the centre tap. Feature f of colour g(f) sees feature e of the same pixel where

    mask A: g(e) < g(f)      the first layer: it must not see the level that it is to predict              (3)
    mask B: g(e) <= g(f)     every later one: e itself has seen earlier colours only                       (4)

so red sees the context alone, green red, blue red and green. With one channel A hides the centre and B shows it. A
masked k x k kernel is zero below its centre; here those weights do not exist.

Besides `__call__` on whole maps the modules evaluate one row or one pixel of n samples, given what a cache holds of the
past: networks take part in `samplers.autoregressive` by methods, for each does the same sums as its own `__call__`.

Source: van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML 2016, arXiv:1601.06759.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gm_jax.ops.convolution import conv
from gm_jax.types import Array

Colors = tuple[int, ...]  # the colour of each feature

_SEEN_BY_ALL = -1  # the colour of what belongs to an earlier pixel


def colors(features: int, channels: int, *, repeats: int = 1) -> Colors:
    """Shares features out among the colours, in equal blocks; `repeats` such groups, as gates need them.

    Args:
        features: how many in one group, at least one a channel.
        channels: colours.
        repeats: groups, one after the other.
    Raises:
        ValueError: there are fewer features than channels.
    """
    if features < channels:
        raise ValueError(f"{features} features cannot carry {channels} channels: each needs one at least.")
    return tuple(feature * channels // features for feature in range(features)) * repeats


def color_mask(inputs: Colors, outputs: Colors, *, strict: bool) -> np.ndarray:
    """[inputs, outputs] bool: what sees what within one pixel; mask A (3) if strict, else mask B (4)."""
    seen, seeing = np.asarray(inputs)[:, None], np.asarray(outputs)[None]
    return seen < seeing if strict else seen <= seeing


def shift_down(x: Array) -> Array:
    """Moves maps [B, H, W, C] down by a row, zeros first: what saw its own row then sees the rows above alone."""
    return jnp.pad(x[:, :-1], [(0, 0), (1, 0), (0, 0), (0, 0)])


def scale_levels(x: Array, levels: int, dtype: DTypeLike | None) -> Array:
    """Levels 0 ... L - 1, integer or floating, to [-1, 1]."""
    return (2.0 / (levels - 1)) * x.astype(jnp.result_type(float) if dtype is None else dtype) - 1.0


def write_level(row: Array, position: Array, x: Array, *, width: int) -> Array:
    """Writes one scaled level of each sample, x [n], to a row [n, k // 2 + width, C] at its raster position."""
    channels = row.shape[2]
    column = row.shape[1] - width + position // channels % width
    return row.at[:, column, position % channels].set(x.astype(row.dtype))


def at_column(row: Array, column: Array) -> Array:
    """[n, columns, C] -> [n, C]."""
    return jax.lax.dynamic_index_in_dim(row, column, axis=1, keepdims=False)


def set_column(row: Array, column: Array, x: Array) -> Array:
    """Writes x [n, C] to a column of a row [n, columns, C]."""
    return jax.lax.dynamic_update_slice_in_dim(row, x[:, None], column, axis=1)


class MaskedDense(nn.Module):
    """A linear map of each pixel's features that keeps the order of the colours: [..., I] -> [..., O].

    Attributes:
        inputs: colour of each input.
        outputs: colour of each output.
        strict: mask A, else mask B.
        dtype: precision of the computation.
    """

    inputs: Colors
    outputs: Colors
    strict: bool = False
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (len(self.inputs), len(self.outputs)))
        bias = self.param("bias", nn.initializers.zeros, (len(self.outputs),))
        mask = color_mask(self.inputs, self.outputs, strict=self.strict)
        kernel = kernel if mask.all() else jnp.where(mask, kernel, jnp.zeros_like(kernel))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return x @ kernel + bias.reshape((1,) * (x.ndim - 1) + (-1,))


class RowConv(nn.Module):
    """The left part (2): a masked convolution along the row, [B, H, W, I] -> [B, H, W, O].

    Attributes:
        size: k; the taps are the k // 2 pixels to the left and the pixel itself.
        inputs: colour of each input.
        outputs: colour of each output.
        strict: mask A, else mask B.
        dtype: precision of the computation.
    """

    size: int
    inputs: Colors
    outputs: Colors
    strict: bool = False
    dtype: DTypeLike | None = None

    def setup(self):
        _check_size(self.size)
        earlier = (_SEEN_BY_ALL,) * (len(self.inputs) * (self.size // 2))
        self.taps = MaskedDense((*earlier, *self.inputs), self.outputs, self.strict, self.dtype)

    def __call__(self, x: Array) -> Array:
        # One product over the taps side by side. With so few of them it is as fast as a convolution forwards, and
        # three times as fast in the weights' gradient where XLA's default gives convolutions one thread (CPU).
        width = x.shape[2]
        padded = jnp.pad(x, [(0, 0), (0, 0), (self.size // 2, 0), (0, 0)])
        shifted = [padded[:, :, tap : tap + width] for tap in range(self.size // 2 + 1)]
        return self.taps(jnp.concatenate(shifted, axis=-1))

    def begin(self, n: int, width: int, dtype: DTypeLike) -> Array:
        """The zeros that a row is written into: [n, k // 2 + width, I]."""
        return jnp.zeros((n, self.size // 2 + width, len(self.inputs)), dtype)

    def write(self, row: Array, column: Array, x: Array) -> Array:
        """Writes the features x [n, I] of one pixel."""
        return set_column(row, column + self.size // 2, x.astype(row.dtype))

    def at(self, row: Array, column: Array) -> Array:
        """The outputs [n, O] of one pixel, of a row that is written as far as the pixel."""
        window = jax.lax.dynamic_slice_in_dim(row, column, self.size // 2 + 1, axis=1)
        return self.taps(window.reshape(window.shape[0], -1))


class UpperConv(nn.Module):
    """A convolution over whole rows, a pixel's own and those above it: [B, H, W, I] -> [B, H, W, F].

    Shifted down by a row (`shift_down`, of its input or its output) it is the part above (1).

    Attributes:
        features: F.
        rows: height of the kernel, whose last row is the pixel's own.
        size: k, its width.
        use_bias: whether it adds a bias.
        dtype: precision of the computation.
    """

    features: int
    rows: int
    size: int
    use_bias: bool = True
    dtype: DTypeLike | None = None

    def __call__(self, x: Array) -> Array:
        return self._convolve(x, rows_above=self.rows - 1)

    def begin(self, n: int, width: int, inputs: int, dtype: DTypeLike) -> Array:
        """The zeros above an image: [n, rows - 1, width, inputs]."""
        return jnp.zeros((n, self.rows - 1, width, inputs), dtype)

    def next_row(self, history: Array, row: Array) -> tuple[Array, Array]:
        """One row x [n, width, I] more -> (history, its outputs [n, width, F])."""
        rows = jnp.concatenate([history, row[:, None].astype(history.dtype)], axis=1)
        return rows[:, 1:], self._convolve(rows, rows_above=0)[:, 0]

    @nn.compact
    def _convolve(self, x: Array, *, rows_above: int) -> Array:
        _check_size(self.size)
        shape = (self.rows, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv(x, kernel, padding=((rows_above, 0), (self.size // 2, self.size // 2)))
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)


class MaskedConvCache(NamedTuple):
    """What a masked convolution keeps of the rows above and of the row that is being written.

    Attributes:
        history: [n, k // 2 - 1, width, I] inputs above the row above.
        row: [n, k // 2 + width, I] inputs of the current row, as far as they are written.
        above: [n, width, O] the part above (1) of the current row.
    """

    history: Array
    row: Array
    above: Array


class MaskedConv(nn.Module):
    """The k x k masked convolution, (1) plus (2): [B, H, W, I] -> [B, H, W, O].

    Attributes:
        size: k, odd, at least 3.
        inputs: colour of each input.
        outputs: colour of each output.
        strict: mask A, else mask B.
        dtype: precision of the computation.
    """

    size: int
    inputs: Colors
    outputs: Colors
    strict: bool = False
    dtype: DTypeLike | None = None

    def setup(self):
        self.above = UpperConv(len(self.outputs), self.size // 2, self.size, use_bias=False, dtype=self.dtype)
        self.left = RowConv(self.size, self.inputs, self.outputs, self.strict, self.dtype)

    def __call__(self, x: Array) -> Array:
        return self.above(shift_down(x)) + self.left(x)

    def begin(self, n: int, width: int, dtype: DTypeLike) -> MaskedConvCache:
        """The cache before the first row."""
        return MaskedConvCache(
            history=self.above.begin(n, width, len(self.inputs), dtype),
            row=self.left.begin(n, width, dtype),
            above=jnp.zeros((n, width, len(self.outputs)), dtype),
        )

    def begin_row(self, cache: MaskedConvCache) -> MaskedConvCache:
        """Turns the row that was written, or the zeros above the first, into the part above of the next."""
        history, above = self.above.next_row(cache.history, cache.row[:, self.size // 2 :])
        # What is left in `row` is not read before it is written anew.
        return MaskedConvCache(history, cache.row, above)

    def write(self, cache: MaskedConvCache, column: Array, x: Array) -> MaskedConvCache:
        """Writes the inputs x [n, I] of one pixel of the current row."""
        return cache._replace(row=self.left.write(cache.row, column, x))

    def at(self, cache: MaskedConvCache, column: Array) -> Array:
        """The outputs [n, O] of one pixel, of a row that is written as far as the pixel."""
        return at_column(cache.above, column) + self.left.at(cache.row, column)


def _check_size(size: int) -> None:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a masked convolution has an odd size, so that it has a centre: not {size}.")
