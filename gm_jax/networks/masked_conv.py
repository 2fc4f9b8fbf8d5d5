"""Convolutions that respect raster order: row by row, left to right, channel by channel.

Notation: a pixel (r, c); size k, an odd number; "colour" the data channel (red, green, blue) that a feature belongs to.

Each k x k masked convolution is the sum of two parts, which cached sampling computes at different times:

    above: the rows r - k/2 ... r - 1, all k columns around c: once per row                                (1)
    left:  the pixels (r, c - k/2) ... (r, c - 1) and, if the mask allows it, (r, c): once per pixel       (2)

The mask applies to the centre tap. Feature f of colour g(f) sees feature e of the same pixel if

    mask A: g(e) < g(f)      the first layer, which must not see the level that it predicts                (3)
    mask B: g(e) <= g(f)     every later layer, because e has seen earlier colours only                    (4)

So red sees the context only, green also sees red, and blue also sees red and green. With one channel, mask A hides the
centre and mask B shows it. A masked k x k kernel is zero below its centre; here those weights do not exist.

`__call__` evaluates whole maps. The other methods evaluate one row or one pixel of n samples, given a cache of the
past, for `samplers.autoregressive`; they compute the same sums as `__call__`.

Source: van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML 2016, arXiv:1601.06759.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike

from gm_jax.ops.cpu import conv
from gm_jax.types import Array

Colors = tuple[int, ...]  # the colour of each feature

_SEEN_BY_ALL = -1  # the colour of features of earlier pixels


def colors(features: int, channels: int, *, repeats: int = 1) -> Colors:
    """Divides features among the colours in equal blocks, and repeats the result for gates.

    Args:
        features: number of features in one group, at least one per channel.
        channels: number of colours.
        repeats: number of groups.
    Returns:
        The colour of each of features * repeats features.
    Raises:
        ValueError: there are fewer features than channels.
    """
    if features < channels:
        raise ValueError(f"{features} features cannot carry {channels} channels: use at least one feature per channel.")
    return tuple(feature * channels // features for feature in range(features)) * repeats


def color_mask(inputs: Colors, outputs: Colors, *, strict: bool) -> np.ndarray:
    """Returns [inputs, outputs] bool, which output of a pixel sees which input: mask A (3) if strict, else B (4)."""
    seen, seeing = np.asarray(inputs)[:, None], np.asarray(outputs)[None]
    return seen < seeing if strict else seen <= seeing


def shift_down(x: Array) -> Array:
    """Shifts maps [B, H, W, C] down by a row, with zeros first: features of a row move to the row below."""
    return jnp.pad(x[:, :-1], [(0, 0), (1, 0), (0, 0), (0, 0)])


def write_level(row: Array, position: Array, x: Array, *, width: int) -> Array:
    """Writes one scaled level of each sample, x [n], to a row [n, k // 2 + width, C] at its raster position."""
    channels = row.shape[2]
    column = row.shape[1] - width + position // channels % width
    return row.at[:, column, position % channels].set(x.astype(row.dtype))


def at_column(row: Array, column: Array) -> Array:
    """Reads one column of a row: [n, columns, C] -> [n, C]."""
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
        """Maps x [..., I] to [..., O]."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (len(self.inputs), len(self.outputs)))
        bias = self.param("bias", nn.initializers.zeros, (len(self.outputs),))
        mask = color_mask(self.inputs, self.outputs, strict=self.strict)
        kernel = kernel if mask.all() else jnp.where(mask, kernel, jnp.zeros_like(kernel))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
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

    def setup(self) -> None:
        _check_size(self.size)
        earlier = (_SEEN_BY_ALL,) * (len(self.inputs) * (self.size // 2))
        self.taps = MaskedDense((*earlier, *self.inputs), self.outputs, self.strict, self.dtype)

    def __call__(self, x: Array) -> Array:
        """Maps x [B, H, W, I] to [B, H, W, O]."""
        # One product over concatenated taps has a faster gradient than a convolution on CPUs.
        width = x.shape[2]
        padded = jnp.pad(x, [(0, 0), (0, 0), (self.size // 2, 0), (0, 0)])
        shifted = [padded[:, :, tap : tap + width] for tap in range(self.size // 2 + 1)]
        return self.taps(jnp.concatenate(shifted, axis=-1))

    def begin(self, n: int, width: int, dtype: DTypeLike) -> Array:
        """Returns an empty row of inputs, zeros [n, k // 2 + width, I]."""
        return jnp.zeros((n, self.size // 2 + width, len(self.inputs)), dtype)

    def write(self, row: Array, column: Array, x: Array) -> Array:
        """Writes the inputs x [n, I] of one pixel to a row."""
        return set_column(row, column + self.size // 2, x.astype(row.dtype))

    def at(self, row: Array, column: Array) -> Array:
        """Computes the outputs [n, O] of one pixel from a row that is written up to that pixel."""
        window = jax.lax.dynamic_slice_in_dim(row, column, self.size // 2 + 1, axis=1)
        return self.taps(window.reshape(window.shape[0], -1))


class UpperConv(nn.Module):
    """A convolution over whole rows, a pixel's own row and those above it: [B, H, W, I] -> [B, H, W, F].

    With its input or output shifted down by a row (`shift_down`) it is the part above (1).

    Attributes:
        features: F.
        rows: height of the kernel, whose last row meets the pixel's own row.
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
        """Maps x [B, H, W, I] to [B, H, W, F]."""
        return self._convolve(x, rows_above=self.rows - 1)

    def begin(self, n: int, width: int, inputs: int, dtype: DTypeLike) -> Array:
        """Returns the history before the first row, zeros [n, rows - 1, width, inputs]."""
        return jnp.zeros((n, self.rows - 1, width, inputs), dtype)

    def next_row(self, history: Array, row: Array) -> tuple[Array, Array]:
        """Adds a row [n, width, I]; returns (history, the row's outputs [n, width, F])."""
        rows = jnp.concatenate([history, row[:, None].astype(history.dtype)], axis=1)
        return rows[:, 1:], self._convolve(rows, rows_above=0)[:, 0]

    @nn.compact
    def _convolve(self, x: Array, *, rows_above: int) -> Array:
        _check_size(self.size)
        shape = (self.rows, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv(x, kernel, padding=((rows_above, 0), (self.size // 2, self.size // 2)))
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)


class MaskedConvCache(NamedTuple):
    """A masked convolution's cache of the rows above and of the current row.

    Attributes:
        history: [n, k // 2 - 1, width, I] inputs of the rows above, except the last one.
        row: [n, k // 2 + width, I] inputs of the current row, as far as they are written.
        above: [n, width, O] the part above (1) of the current row.
    """

    history: Array
    row: Array
    above: Array


class MaskedConv(nn.Module):
    """The k x k masked convolution, the sum of (1) and (2): [B, H, W, I] -> [B, H, W, O].

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

    def setup(self) -> None:
        self.above = UpperConv(len(self.outputs), self.size // 2, self.size, use_bias=False, dtype=self.dtype)
        self.left = RowConv(self.size, self.inputs, self.outputs, self.strict, self.dtype)

    def __call__(self, x: Array) -> Array:
        """Maps x [B, H, W, I] to [B, H, W, O]."""
        return self.above(shift_down(x)) + self.left(x)

    def begin(self, n: int, width: int, dtype: DTypeLike) -> MaskedConvCache:
        """Returns the cache before the first row."""
        return MaskedConvCache(
            history=self.above.begin(n, width, len(self.inputs), dtype),
            row=self.left.begin(n, width, dtype),
            above=jnp.zeros((n, width, len(self.outputs)), dtype),
        )

    def begin_row(self, cache: MaskedConvCache) -> MaskedConvCache:
        """Computes the next row's part above (1) from the row that was written, or from zeros above the first row."""
        history, above = self.above.next_row(cache.history, cache.row[:, self.size // 2 :])
        # The old values in `row` are overwritten before they are read.
        return MaskedConvCache(history, cache.row, above)

    def write(self, cache: MaskedConvCache, column: Array, x: Array) -> MaskedConvCache:
        """Writes the inputs x [n, I] of one pixel of the current row."""
        return cache._replace(row=self.left.write(cache.row, column, x))

    def at(self, cache: MaskedConvCache, column: Array) -> Array:
        """Computes the outputs [n, O] of one pixel from a row that is written up to that pixel."""
        return at_column(cache.above, column) + self.left.at(cache.row, column)


def _check_size(size: int) -> None:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a masked convolution needs an odd size, so that it has a centre: {size} is not odd.")
