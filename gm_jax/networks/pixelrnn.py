"""PixelRNN: two-dimensional LSTMs, whose states reach every earlier pixel or a triangle of them.

Maps levels [B, H, W, C] to outputs [B, H, W, C, P], as `pixelcnn` does: a mask-A convolution, residual layers of one
kind of LSTM, two 1 x 1 convolutions. At pixel (r, c), with x the layer's input and o, f, i, g the gates,

    s <- f s + i g,    h = o tanh(s),    o, f, i = sigmoid(...),  g = tanh(...)                       (1)

    Row LSTM:       gates from x(r, c-1), x(r, c) and h(r-1, c-1 ... c+1); s from (r-1, c)             (2)
    Diagonal LSTM:  gates from x(r, c), h(r, c-1) and h(r-1, c);           s from (r, c-1)             (3)

States outside the image are zero. (2) advances by rows; what it sees is a triangle above. (3) advances by diagonals:
`skew` moves row r by r columns to the right, so that both of h's places lie in the column before. It sees what is
above and to the left; run on the mirrored map as well, and the result moved down by a row, which makes the pixels to
the right belong to the past, the two together are the Diagonal BiLSTM.

A departure from the paper: the mirrored direction reads the image beside x. Features of a row hold, by mask A, no more
than what precedes them, so that nothing there has seen the row's last pixel; the paper's network learns of it only in
the next row's last columns, and has a blind spot of one pixel. Moved down by a row, the direction may look.

Source: van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML 2016, arXiv:1601.06759.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gm_jax.networks.label_bias import LabelBias, add_bias, halves
from gm_jax.networks.masked_conv import (
    MaskedConv,
    MaskedConvCache,
    MaskedDense,
    RowConv,
    at_column,
    colors,
    scale_levels,
    set_column,
    shift_down,
    write_level,
)
from gm_jax.networks.pixelcnn import Readout
from gm_jax.types import Array


def skew(x: Array) -> Array:
    """Moves row r of maps [B, H, W, C] by r columns to the right: [B, H, W + H - 1, C], zeros elsewhere."""
    batch, height, width, channels = x.shape
    # H zeros after each row, and rows of one column less laid over the same numbers: each starts one further right.
    flat = jnp.pad(x, [(0, 0), (0, 0), (0, height), (0, 0)]).reshape(batch, -1, channels)
    return flat[:, : height * (width + height - 1)].reshape(batch, height, width + height - 1, channels)


def unskew(x: Array, width: int) -> Array:
    """Undoes `skew`: [B, H, W + H - 1, C] -> [B, H, W, C]."""
    batch, height, _, channels = x.shape
    flat = jnp.pad(x.reshape(batch, -1, channels), [(0, 0), (0, height), (0, 0)])
    return flat.reshape(batch, height, width + height, channels)[:, :, :width]


def lstm_cell(gates: Array, state: Array) -> tuple[Array, Array]:
    """Equation (1): gates [..., 4h] before their nonlinearities and state s [..., h] -> (h, s)."""
    output, forget, write, content = jnp.split(gates, 4, axis=-1)
    state = jax.nn.sigmoid(forget) * state + jax.nn.sigmoid(write) * jnp.tanh(content)
    return jax.nn.sigmoid(output) * jnp.tanh(state), state


class RowLSTMCache(NamedTuple):
    """What a Row LSTM keeps.

    Attributes:
        inputs: [n, 1 + W, I] its inputs of the current row, as far as they are written.
        recurrent: [n, W, 4h] what the hidden row above gives to the gates.
        state_above: [n, W, h] s of the row above.
        hidden: [n, W, h] of the current row, as far as it is written.
        state: [n, W, h] likewise.
        bias: b(y) [n, 4h].
    """

    inputs: Array
    recurrent: Array
    state_above: Array
    hidden: Array
    state: Array
    bias: Array | None


class RowLSTM(nn.Module):
    """The Row LSTM (2): x [B, H, W, I] -> [B, H, W, h]. It does not look at the image.

    Attributes:
        inputs: I.
        hidden: h.
        channels: C.
        num_classes: classes of the label; None for none.
        dtype: precision of the computation.
    """

    inputs: int
    hidden: int
    channels: int
    num_classes: int | None = None
    dtype: DTypeLike | None = None

    def setup(self):
        gates = colors(self.hidden, self.channels, repeats=4)
        self.input_to_state = RowConv(3, colors(self.inputs, self.channels), gates, dtype=self.dtype)
        # The 3 x 1 convolution of the row above, as a product: gradients of convolutions inside a scan are slow.
        self.state_to_state = nn.Dense(len(gates), use_bias=False, dtype=self.dtype)
        self.label_bias = LabelBias(self.num_classes, len(gates), self.dtype)

    def __call__(self, x: Array, image: Array, label: Array | None) -> Array:
        gates = add_bias(self.input_to_state(x), self.label_bias(label))
        self.state_to_state(jnp.zeros((1, 3 * self.hidden), gates.dtype))  # makes the parameters, outside the scan

        def next_row(carry: tuple[Array, Array], gates: Array) -> tuple[tuple[Array, Array], Array]:
            hidden, state = carry
            carry = lstm_cell(gates + self.state_to_state(_neighbours(hidden)), state)
            return carry, carry[0]

        zeros = jnp.zeros((*x.shape[:1], x.shape[2], self.hidden), gates.dtype)
        _, hidden = jax.lax.scan(next_row, (zeros, zeros), jnp.moveaxis(gates, 1, 0))
        return jnp.moveaxis(hidden, 0, 1)

    def begin(self, n: int, width: int, label: Array | None, dtype: DTypeLike) -> RowLSTMCache:
        """The cache before the first row."""
        zeros = jnp.zeros((n, width, self.hidden), dtype)
        recurrent = jnp.zeros((n, width, 4 * self.hidden), dtype)
        inputs = self.input_to_state.begin(n, width, dtype)
        return RowLSTMCache(inputs, recurrent, zeros, zeros, zeros, self.label_bias(label))

    def begin_row(self, cache: RowLSTMCache, row: Array, image_row: Array) -> RowLSTMCache:
        """What the row above gives to the next."""
        recurrent = self.state_to_state(_neighbours(cache.hidden))
        return cache._replace(recurrent=recurrent, state_above=cache.state)

    def step(self, cache: RowLSTMCache, column: Array, x: Array) -> tuple[RowLSTMCache, Array]:
        """One pixel: x [n, I] -> h [n, h]."""
        inputs = self.input_to_state.write(cache.inputs, column, x)
        gates = add_bias(self.input_to_state.at(inputs, column), cache.bias) + at_column(cache.recurrent, column)
        hidden, state = lstm_cell(gates, at_column(cache.state_above, column))
        cache = cache._replace(
            inputs=inputs,
            hidden=set_column(cache.hidden, column, hidden),
            state=set_column(cache.state, column, state),
        )
        return cache, hidden


class DiagonalLSTM(nn.Module):
    """The Diagonal LSTM (3), left to right: gates of the input [B, H, W, 4h] -> [B, H, W, h].

    Attributes:
        hidden: h.
        dtype: precision of the computation.
    """

    hidden: int
    dtype: DTypeLike | None = None

    def setup(self):
        # The 2 x 1 convolution of the column before, as a product: gradients of convolutions in a scan are slow.
        self.state_to_state = nn.Dense(4 * self.hidden, use_bias=False, dtype=self.dtype)

    def __call__(self, gates: Array) -> Array:
        batch, height, width, _ = gates.shape
        self.state_to_state(jnp.zeros((1, 2 * self.hidden), gates.dtype))  # makes the parameters, outside the scan
        offset = np.arange(width + height - 1)[:, None] - np.arange(height)[None]
        inside = jnp.asarray((offset >= 0) & (offset < width))[:, None, :, None]  # [W + H - 1, 1, H, 1]

        def next_column(carry: tuple[Array, Array], column: tuple[Array, Array]):
            (hidden, state), (gates, inside) = carry, column
            above = jnp.pad(hidden[:, :-1], [(0, 0), (1, 0), (0, 0)])
            carry = self.cell(gates, state, hidden, above)
            carry = jax.tree.map(lambda leaf: jnp.where(inside, leaf, 0.0), carry)
            return carry, carry[0]

        zeros = jnp.zeros((batch, height, self.hidden), gates.dtype)
        columns = (jnp.moveaxis(skew(gates), 2, 0), inside)
        _, hidden = jax.lax.scan(next_column, (zeros, zeros), columns)
        return unskew(jnp.moveaxis(hidden, 0, 2), width)

    def cell(self, gates: Array, state: Array, left: Array, above: Array) -> tuple[Array, Array]:
        """One place: what the input gives to the gates, s to the left, h to the left and h above -> (h, s)."""
        return lstm_cell(gates + self.state_to_state(jnp.concatenate([left, above], axis=-1)), state)


class DiagonalBiLSTMCache(NamedTuple):
    """What a Diagonal BiLSTM keeps; the rows of the first three have a column of zeros on the left.

    Attributes:
        inputs: [n, W, I] its inputs of the current row, as far as they are written.
        hidden: [n, 1 + W, h] of the current row, left to right.
        state: [n, 1 + W, h] likewise.
        hidden_above: [n, 1 + W, h] of the row above, left to right.
        mirrored_above: [n, W, h] of the row above, right to left.
        bias: b(y) of both directions, [n, 8h].
    """

    inputs: Array
    hidden: Array
    state: Array
    hidden_above: Array
    mirrored_above: Array
    bias: Array | None


class DiagonalBiLSTM(nn.Module):
    """The Diagonal BiLSTM, two of (3): x [B, H, W, I] and the image [B, H, W, C] -> [B, H, W, h].

    Attributes:
        inputs: I.
        hidden: h.
        channels: C.
        num_classes: classes of the label; None for none.
        dtype: precision of the computation.
    """

    inputs: int
    hidden: int
    channels: int
    num_classes: int | None = None
    dtype: DTypeLike | None = None

    def setup(self):
        inputs, gates = colors(self.inputs, self.channels), colors(self.hidden, self.channels, repeats=4)
        self.input_to_state = MaskedDense(inputs, gates, dtype=self.dtype)
        self.forward = DiagonalLSTM(self.hidden, self.dtype)
        # Right to left needs no colours: its result is moved down by a row, whence every colour is known.
        self.mirrored_input_to_state = nn.Dense(len(gates), dtype=self.dtype)
        self.mirrored = DiagonalLSTM(self.hidden, self.dtype)
        self.label_bias = LabelBias(self.num_classes, 2 * len(gates), self.dtype)

    def __call__(self, x: Array, image: Array, label: Array | None) -> Array:
        bias, mirrored_bias = halves(self.label_bias(label))
        hidden = self.forward(add_bias(self.input_to_state(x), bias))
        mirrored = self.mirrored(_mirror(self._mirrored_gates(x, image, mirrored_bias)))
        return hidden + shift_down(_mirror(mirrored))

    def begin(self, n: int, width: int, label: Array | None, dtype: DTypeLike) -> DiagonalBiLSTMCache:
        """The cache before the first row."""
        row = jnp.zeros((n, width, self.hidden), dtype)
        padded = jnp.zeros((n, 1 + width, self.hidden), dtype)
        inputs = jnp.zeros((n, width, self.inputs), dtype)
        return DiagonalBiLSTMCache(inputs, padded, padded, padded, row, self.label_bias(label))

    def begin_row(self, cache: DiagonalBiLSTMCache, row: Array, image_row: Array) -> DiagonalBiLSTMCache:
        """Right to left through the row that was written, image_row [n, W, C], which is the row above the next."""
        gates = self._mirrored_gates(cache.inputs, image_row, halves(cache.bias)[1])

        def next_column(carry: tuple[Array, Array], column: tuple[Array, Array]):
            (hidden, state), (gates, above) = carry, column
            carry = self.mirrored.cell(gates, state, hidden, above)
            return carry, carry[0]

        zeros = jnp.zeros_like(cache.mirrored_above[:, 0])
        columns = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), (gates, cache.mirrored_above))
        _, mirrored = jax.lax.scan(next_column, (zeros, zeros), columns, reverse=True)
        # Above the first row there are zeros, which a bias would fill.
        mirrored = jnp.where(row > 0, jnp.moveaxis(mirrored, 0, 1), 0.0)
        return cache._replace(hidden_above=cache.hidden, mirrored_above=mirrored)

    def step(self, cache: DiagonalBiLSTMCache, column: Array, x: Array) -> tuple[DiagonalBiLSTMCache, Array]:
        """One pixel: x [n, I] -> h [n, h]."""
        bias, _ = halves(cache.bias)
        hidden, state = self.forward.cell(
            add_bias(self.input_to_state(x), bias),
            at_column(cache.state, column),
            at_column(cache.hidden, column),
            at_column(cache.hidden_above, column + 1),
        )
        cache = cache._replace(
            inputs=set_column(cache.inputs, column, x),
            hidden=set_column(cache.hidden, column + 1, hidden),
            state=set_column(cache.state, column + 1, state),
        )
        return cache, hidden + at_column(cache.mirrored_above, column)

    def _mirrored_gates(self, x: Array, image: Array, bias: Array | None) -> Array:
        return add_bias(self.mirrored_input_to_state(jnp.concatenate([x, image], axis=-1)), bias)


class PixelRNNCache(NamedTuple):
    """What PixelRNN keeps: the caches of its first layer and of each LSTM."""

    first: MaskedConvCache
    lstms: tuple[Any, ...]


class PixelRNN(nn.Module):
    """PixelRNN: levels [B, H, W, C] -> outputs [B, H, W, C, P].

    Attributes:
        event_shape: (H, W, C) of one image.
        levels: L; levels are scaled to [-1, 1].
        outputs_per_dim: P.
        lstm: `RowLSTM` or `DiagonalBiLSTM`.
        hidden: h, of each LSTM; the trunk is 2h wide.
        layers: LSTMs.
        first_size: k of the mask-A layer.
        num_classes: classes of the label; None for none.
        dtype: precision of the computation.
    """

    event_shape: tuple[int, int, int]
    levels: int
    outputs_per_dim: int
    lstm: type[RowLSTM] | type[DiagonalBiLSTM] = DiagonalBiLSTM
    hidden: int = 16
    layers: int = 7
    first_size: int = 7
    num_classes: int | None = None
    dtype: DTypeLike | None = None

    def setup(self):
        channels = self.event_shape[2]
        trunk, narrow = colors(2 * self.hidden, channels), colors(self.hidden, channels)
        self.first = MaskedConv(self.first_size, colors(channels, channels), trunk, strict=True, dtype=self.dtype)
        self.lstms = [
            self.lstm(len(trunk), self.hidden, channels, self.num_classes, self.dtype) for _ in range(self.layers)
        ]
        self.widen = [MaskedDense(narrow, trunk, dtype=self.dtype) for _ in range(self.layers)]
        self.readout = Readout(trunk, channels, self.outputs_per_dim, self.dtype)

    def __call__(self, x: Array, label: Array | None = None) -> Array:
        image = scale_levels(x, self.levels, self.dtype)
        x = self.first(image)
        for lstm, widen in zip(self.lstms, self.widen, strict=True):
            x = x + widen(lstm(x, image, label))
        return self.readout(x)

    def begin(self, n: int, label: Array | None = None) -> PixelRNNCache:
        """The cache before the first row of n images."""
        width, dtype = self.event_shape[1], self.dtype or jnp.result_type(float)
        lstms = tuple(lstm.begin(n, width, label, dtype) for lstm in self.lstms)
        return PixelRNNCache(self.first.begin(n, width, dtype), lstms)

    def begin_row(self, cache: PixelRNNCache, row: Array, previous: Array) -> PixelRNNCache:
        """What the rows above give to the next; `previous` [n] is the last level above."""
        width = self.event_shape[1]
        # Above the first row there are zeros, not levels.
        last = jnp.where(row > 0, scale_levels(previous, self.levels, self.dtype), 0.0)
        first = cache.first._replace(row=write_level(cache.first.row, jnp.int32(-1), last, width=width))
        image_row = first.row[:, -width:]
        lstms = tuple(lstm.begin_row(part, row, image_row) for lstm, part in zip(self.lstms, cache.lstms, strict=True))
        return PixelRNNCache(self.first.begin_row(first), lstms)

    def step(self, cache: PixelRNNCache, i: Array, previous: Array) -> tuple[PixelRNNCache, Array]:
        """The outputs [n, P] of position i, given the level [n] before it."""
        _, width, channels = self.event_shape
        column = i // channels % width
        level = scale_levels(previous, self.levels, self.dtype)
        first = cache.first._replace(row=write_level(cache.first.row, i - 1, level, width=width))
        x = self.first.at(first, column)
        lstms = []
        for lstm, widen, part in zip(self.lstms, self.widen, cache.lstms, strict=True):
            part, hidden = lstm.step(part, column, x)
            x = x + widen(hidden)
            lstms.append(part)
        return PixelRNNCache(first, tuple(lstms)), at_column(self.readout(x), i % channels)


def _neighbours(row: Array) -> Array:
    """[n, W, h] -> [n, W, 3h]: each place's left neighbour, itself and its right one, zeros outside."""
    padded = jnp.pad(row, [(0, 0), (1, 1), (0, 0)])
    return jnp.concatenate([padded[:, :-2], row, padded[:, 2:]], axis=-1)


def _mirror(x: Array) -> Array:
    return jnp.flip(x, axis=2)
