"""PixelRNN: two-dimensional LSTMs, whose states depend on every earlier pixel or on a triangle of them.

The network is a mask-A convolution, residual layers of one kind of LSTM, and two 1 x 1 convolutions; `pixel_network`
describes its outputs and the cached evaluation. At pixel (r, c), with x the layer's input and o, f, i, g the gates,

    s <- f s + i g,    h = o tanh(s),    o, f, i = sigmoid(...),  g = tanh(...)                       (1)

    Row LSTM:       gates from x(r, c-1), x(r, c) and h(r-1, c-1 ... c+1); s from (r-1, c)             (2)
    Diagonal LSTM:  gates from x(r, c), h(r, c-1) and h(r-1, c);           s from (r, c-1)             (3)

States outside the image are zero. (2) advances by rows and sees a triangle above. (3) advances by diagonals: `skew`
shifts row r by r columns to the right, so that both inputs h lie in the previous column. It sees the pixels above and
to the left. The Diagonal BiLSTM adds a second Diagonal LSTM on the mirrored map, whose output is shifted down by a row,
because the pixels to the right are known only for the rows above.

Departure from the paper: the mirrored direction reads the image in addition to x. By mask A, the features of a row hold
only what precedes them, so none has seen the row's last pixel. The paper's network sees that pixel only in the last
columns of the next row, which leaves a blind spot of one pixel. The shift by a row allows the direction to read it.

Source: van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML 2016, arXiv:1601.06759.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gm_jax.networks.label_bias import LabelBias, add_bias, halves
from gm_jax.networks.masked_conv import MaskedDense, RowConv, at_column, colors, set_column, shift_down
from gm_jax.networks.pixel_network import ResidualPixelNetwork
from gm_jax.types import Array


def skew(x: Array) -> Array:
    """Shifts row r of maps [B, H, W, C] by r columns to the right: [B, H, W + H - 1, C], zeros elsewhere."""
    batch, height, width, channels = x.shape
    # Rows padded to W + H, read as rows of W + H - 1, start one column further right each.
    flat = jnp.pad(x, [(0, 0), (0, 0), (0, height), (0, 0)]).reshape(batch, -1, channels)
    return flat[:, : height * (width + height - 1)].reshape(batch, height, width + height - 1, channels)


def unskew(x: Array, width: int) -> Array:
    """Reverses `skew`: [B, H, W + H - 1, C] -> [B, H, W, C]."""
    batch, height, _, channels = x.shape
    flat = jnp.pad(x.reshape(batch, -1, channels), [(0, 0), (0, height), (0, 0)])
    return flat.reshape(batch, height, width + height, channels)[:, :, :width]


def lstm_cell(gates: Array, state: Array) -> tuple[Array, Array]:
    """Computes equation (1): gates [..., 4h] before their nonlinearities and state s [..., h] -> (h, s)."""
    output, forget, write, content = jnp.split(gates, 4, axis=-1)
    state = jax.nn.sigmoid(forget) * state + jax.nn.sigmoid(write) * jnp.tanh(content)
    return jax.nn.sigmoid(output) * jnp.tanh(state), state


class RowLSTMCache(NamedTuple):
    """A Row LSTM's cache.

    Attributes:
        inputs: [n, 1 + W, I] inputs of the current row, as far as they are written.
        recurrent: [n, W, 4h] contribution of the row above to the gates.
        state_above: [n, W, h] s of the row above.
        hidden: [n, W, h] h of the current row, as far as it is written.
        state: [n, W, h] s of the current row, as far as it is written.
        bias: b(y) [n, 4h].
    """

    inputs: Array
    recurrent: Array
    state_above: Array
    hidden: Array
    state: Array
    bias: Array | None


class RowLSTM(nn.Module):
    """The Row LSTM (2): x [B, H, W, I] -> [B, H, W, h]. It does not read the image.

    Attributes:
        inputs: I.
        hidden: h.
        channels: C.
        num_classes: number of classes of the labels; None for a network without labels.
        dtype: precision of the computation.
    """

    inputs: int
    hidden: int
    channels: int
    num_classes: int | None = None
    dtype: DTypeLike | None = None

    def setup(self) -> None:
        gates = colors(self.hidden, self.channels, repeats=4)
        self.input_to_state = RowConv(3, colors(self.inputs, self.channels), gates, dtype=self.dtype)
        # The 3 x 1 convolution of the row above is a product, because gradients of convolutions in a scan are slow.
        self.state_to_state = nn.Dense(len(gates), use_bias=False, dtype=self.dtype)
        self.label_bias = LabelBias(self.num_classes, len(gates), self.dtype)

    def __call__(self, x: Array, image: Array, label: Array | None) -> Array:
        """Maps x [B, H, W, I] and labels [B] to [B, H, W, h]."""
        gates = add_bias(self.input_to_state(x), self.label_bias(label))
        self.state_to_state(jnp.zeros((1, 3 * self.hidden), gates.dtype))  # creates the parameters outside the scan

        def next_row(carry: tuple[Array, Array], gates: Array) -> tuple[tuple[Array, Array], Array]:
            hidden, state = carry
            carry = lstm_cell(gates + self.state_to_state(_neighbours(hidden)), state)
            return carry, carry[0]

        zeros = jnp.zeros((*x.shape[:1], x.shape[2], self.hidden), gates.dtype)
        _, hidden = jax.lax.scan(next_row, (zeros, zeros), jnp.moveaxis(gates, 1, 0))
        return jnp.moveaxis(hidden, 0, 1)

    def begin(self, n: int, width: int, label: Array | None, dtype: DTypeLike) -> RowLSTMCache:
        """Returns the cache before the first row."""
        zeros = jnp.zeros((n, width, self.hidden), dtype)
        recurrent = jnp.zeros((n, width, 4 * self.hidden), dtype)
        inputs = self.input_to_state.begin(n, width, dtype)
        return RowLSTMCache(inputs, recurrent, zeros, zeros, zeros, self.label_bias(label))

    def begin_row(self, cache: RowLSTMCache, row: Array, image_row: Array) -> RowLSTMCache:
        """Computes the contribution of the row above to the next row."""
        recurrent = self.state_to_state(_neighbours(cache.hidden))
        return cache._replace(recurrent=recurrent, state_above=cache.state)

    def step(self, cache: RowLSTMCache, column: Array, x: Array) -> tuple[RowLSTMCache, Array]:
        """Maps one pixel x [n, I] to (cache, h [n, h])."""
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
    """The Diagonal LSTM (3), left to right: the input's contribution to the gates [B, H, W, 4h] -> [B, H, W, h].

    Attributes:
        hidden: h.
        dtype: precision of the computation.
    """

    hidden: int
    dtype: DTypeLike | None = None

    def setup(self) -> None:
        # The 2 x 1 convolution of the last column is a product, because gradients of convolutions in a scan are slow.
        self.state_to_state = nn.Dense(4 * self.hidden, use_bias=False, dtype=self.dtype)

    def __call__(self, gates: Array) -> Array:
        """Maps gates [B, H, W, 4h] to [B, H, W, h]."""
        batch, height, width, _ = gates.shape
        self.state_to_state(jnp.zeros((1, 2 * self.hidden), gates.dtype))  # creates the parameters outside the scan
        offset = np.arange(width + height - 1)[:, None] - np.arange(height)[None]
        inside = jnp.asarray((offset >= 0) & (offset < width))[:, None, :, None]  # [W + H - 1, 1, H, 1]

        def next_column(carry: tuple[Array, Array], column: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
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
        """Computes one place: the input's contribution to the gates, s and h to the left, and h above -> (h, s)."""
        return lstm_cell(gates + self.state_to_state(jnp.concatenate([left, above], axis=-1)), state)


class DiagonalBiLSTMCache(NamedTuple):
    """A Diagonal BiLSTM's cache; rows of 1 + W start with a column of zeros.

    Attributes:
        inputs: [n, W, I] inputs of the current row, as far as they are written.
        hidden: [n, 1 + W, h] h of the current row, left to right.
        state: [n, 1 + W, h] s of the current row, left to right.
        hidden_above: [n, 1 + W, h] h of the row above, left to right.
        mirrored_above: [n, W, h] h of the row above, right to left.
        bias: b(y) of both directions, [n, 8h].
    """

    inputs: Array
    hidden: Array
    state: Array
    hidden_above: Array
    mirrored_above: Array
    bias: Array | None


class DiagonalBiLSTM(nn.Module):
    """The Diagonal BiLSTM, (3) in two directions: x [B, H, W, I] and the image [B, H, W, C] -> [B, H, W, h].

    Attributes:
        inputs: I.
        hidden: h.
        channels: C.
        num_classes: number of classes of the labels; None for a network without labels.
        dtype: precision of the computation.
    """

    inputs: int
    hidden: int
    channels: int
    num_classes: int | None = None
    dtype: DTypeLike | None = None

    def setup(self) -> None:
        inputs, gates = colors(self.inputs, self.channels), colors(self.hidden, self.channels, repeats=4)
        self.input_to_state = MaskedDense(inputs, gates, dtype=self.dtype)
        self.forward = DiagonalLSTM(self.hidden, self.dtype)
        # Right to left needs no colour masks: its output is shifted down by a row, so all its colours are known.
        self.mirrored_input_to_state = nn.Dense(len(gates), dtype=self.dtype)
        self.mirrored = DiagonalLSTM(self.hidden, self.dtype)
        self.label_bias = LabelBias(self.num_classes, 2 * len(gates), self.dtype)

    def __call__(self, x: Array, image: Array, label: Array | None) -> Array:
        """Maps x [B, H, W, I], the scaled image [B, H, W, C] and labels [B] to [B, H, W, h]."""
        bias, mirrored_bias = halves(self.label_bias(label))
        hidden = self.forward(add_bias(self.input_to_state(x), bias))
        mirrored = self.mirrored(_mirror(self._mirrored_gates(x, image, mirrored_bias)))
        return hidden + shift_down(_mirror(mirrored))

    def begin(self, n: int, width: int, label: Array | None, dtype: DTypeLike) -> DiagonalBiLSTMCache:
        """Returns the cache before the first row."""
        row = jnp.zeros((n, width, self.hidden), dtype)
        padded = jnp.zeros((n, 1 + width, self.hidden), dtype)
        inputs = jnp.zeros((n, width, self.inputs), dtype)
        return DiagonalBiLSTMCache(inputs, padded, padded, padded, row, self.label_bias(label))

    def begin_row(self, cache: DiagonalBiLSTMCache, row: Array, image_row: Array) -> DiagonalBiLSTMCache:
        """Runs the mirrored direction through the row above, image_row [n, W, C]."""
        gates = self._mirrored_gates(cache.inputs, image_row, halves(cache.bias)[1])

        def next_column(carry: tuple[Array, Array], column: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
            (hidden, state), (gates, above) = carry, column
            carry = self.mirrored.cell(gates, state, hidden, above)
            return carry, carry[0]

        zeros = jnp.zeros_like(cache.mirrored_above[:, 0])
        columns = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), (gates, cache.mirrored_above))
        _, mirrored = jax.lax.scan(next_column, (zeros, zeros), columns, reverse=True)
        # Above the first row the states are zero, without the bias.
        mirrored = jnp.where(row > 0, jnp.moveaxis(mirrored, 0, 1), 0.0)
        return cache._replace(hidden_above=cache.hidden, mirrored_above=mirrored)

    def step(self, cache: DiagonalBiLSTMCache, column: Array, x: Array) -> tuple[DiagonalBiLSTMCache, Array]:
        """Maps one pixel x [n, I] to (cache, h [n, h])."""
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


class WidenedLSTM(NamedTuple):
    """A residual layer of PixelRNN, x + W h: an LSTM h and the projection W back to the trunk."""

    lstm: RowLSTM | DiagonalBiLSTM
    widen: MaskedDense

    def __call__(self, x: Array, image: Array, label: Array | None) -> Array:
        """Maps x [B, H, W, 2h], the scaled image [B, H, W, C] and labels [B] to [B, H, W, 2h]."""
        return x + self.widen(self.lstm(x, image, label))

    def begin(self, n: int, width: int, label: Array | None, dtype: DTypeLike) -> Any:
        """Returns the LSTM's cache before the first row."""
        return self.lstm.begin(n, width, label, dtype)

    def begin_row(self, cache: Any, row: Array, image_row: Array) -> Any:
        """Computes the contribution of the row above, image_row [n, W, C], to the next row."""
        return self.lstm.begin_row(cache, row, image_row)

    def step(self, cache: Any, column: Array, x: Array) -> tuple[Any, Array]:
        """Maps one pixel x [n, 2h] to (cache, [n, 2h])."""
        cache, hidden = self.lstm.step(cache, column, x)
        return cache, x + self.widen(hidden)


class PixelRNN(ResidualPixelNetwork):
    """PixelRNN: levels [B, H, W, C] -> outputs [B, H, W, C, P].

    It also has the fields of `PixelNetwork`.

    Attributes:
        lstm: `RowLSTM` or `DiagonalBiLSTM`.
        hidden: h of each LSTM; the trunk is 2h wide.
        layers: number of LSTMs.
        first_size: k of the mask-A layer.
    """

    lstm: type[RowLSTM] | type[DiagonalBiLSTM] = DiagonalBiLSTM
    hidden: int = 16
    layers: int = 7

    def setup(self) -> None:
        super().setup()
        channels = self.event_shape[2]
        trunk, narrow = colors(self.trunk_features(), channels), colors(self.hidden, channels)
        self.lstms = [
            self.lstm(len(trunk), self.hidden, channels, self.num_classes, self.dtype) for _ in range(self.layers)
        ]
        self.widen = [MaskedDense(narrow, trunk, dtype=self.dtype) for _ in range(self.layers)]

    def trunk_features(self) -> int:
        """Returns the width 2h of the trunk."""
        return 2 * self.hidden

    def residual_layers(self) -> Sequence[WidenedLSTM]:
        """Returns the LSTMs with their projections."""
        return [WidenedLSTM(*pair) for pair in zip(self.lstms, self.widen, strict=True)]


def _neighbours(row: Array) -> Array:
    """Concatenates each place with its left and right neighbours, zeros outside: [n, W, h] -> [n, W, 3h]."""
    padded = jnp.pad(row, [(0, 0), (1, 1), (0, 0)])
    return jnp.concatenate([padded[:, :-2], row, padded[:, 2:]], axis=-1)


def _mirror(x: Array) -> Array:
    return jnp.flip(x, axis=2)
