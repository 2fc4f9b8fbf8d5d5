"""PixelCNN++: two streams of gated residual blocks at several scales, which see all earlier pixels and no other.

Maps levels [B, H, W, C] to outputs [B, H, W, Q], the parameters of the distribution of each whole pixel given the
earlier ones. Colours need no masks: their order is in that distribution (`ops.color_mixture`).

    u    down stream: convolutions of 2 rows x 3 columns around a place, its own row and the row above
    l    down-right stream: 2 x 2, the place, its left neighbour and the two above these

The first layers shift their outputs, so that u knows the rows above and l also the pixels to the left; every later
layer may then see its own place. A block, with e(x) = elu([x, -x]) and y a class label, is

    h = W * e(x) + S e(s),    (value, gate) = V * drop(e(h)) + b(y),    x <- x + value sigmoid(gate)     (1)

s is a short cut: u for the blocks of l; and, after the smallest scale, the blocks read the features of the first half
in reverse order, l those of both streams. Between scales convolutions of stride 2 halve the sides (odd ones upwards),
and transposed ones double them.

Every kernel has weight normalisation, and `init` depends on its batch: each layer starts with outputs of mean 0 and
deviation 1, the second one of a block with 0.1. So `init` needs a batch of data.

Source: Salimans, Karpathy, Chen & Kingma, "PixelCNN++", ICLR 2017, arXiv:1701.05517; code openai/pixel-cnn.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike

from gm_jax.networks.dropout import KeyedDropout
from gm_jax.networks.label_bias import LabelBias, add_bias
from gm_jax.networks.masked_conv import shift_down
from gm_jax.networks.normalization import weight_norm
from gm_jax.ops.cpu import conv
from gm_jax.ops.levels import to_symmetric
from gm_jax.types import Array

_IMAGES = ("NHWC", "HWIO", "NHWC")
_LEAST_STD = 1e-4  # an output that varies less over the first batch is only centred


class Kernel(NamedTuple):
    """What a convolution sees: a place, and neighbours that raster order allows.

    Attributes:
        size: rows and columns; the last row is the place's own.
        sides: columns of zeros to the left and to the right of the image.
    """

    size: tuple[int, int]
    sides: tuple[int, int]

    def convolve(self, x: Array, kernel: Array) -> Array:
        """Maps x [B, H, W, I] to [B, H, W, F]."""
        return conv(x, kernel, padding=((self.size[0] - 1, 0), self.sides))

    def halve(self, x: Array, kernel: Array) -> Array:
        """Maps x [B, H, W, I] to [B, H / 2, W / 2, F], rounded up; place r sees what place 2 r of the input may see."""
        padding = ((self.size[0] - 1, 0), self.sides)
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), padding, dimension_numbers=_IMAGES)

    def double(self, x: Array, kernel: Array) -> Array:
        """Maps x [B, H, W, I] to [B, 2 H, 2 W, F]; rows 2 r and 2 r + 1 see row r."""
        y = jax.lax.conv_transpose(x, kernel, (2, 2), "VALID", dimension_numbers=_IMAGES)
        first = self.sides[1]
        return y[:, : 2 * x.shape[1], first : first + 2 * x.shape[2]]


DOWN = Kernel((2, 3), (1, 1))
DOWN_RIGHT = Kernel((2, 2), (1, 0))
ROW = Kernel((1, 3), (1, 1))
COLUMN = Kernel((2, 1), (0, 0))
AT_PLACE = Kernel((1, 1), (0, 0))

Way = Callable[[Kernel, Array, Array], Array]  # Kernel.convolve, .halve or .double


class NormedConv(nn.Module):
    """A convolution with weight normalisation, x [B, H, W, I] -> [B, H', W', F]; `init` depends on its x.

    Attributes:
        features: F.
        kernel: what it sees.
        way: changes the sides or not.
        std: deviation of each output over the batch of `init`, whose mean is 0.
        dtype: precision of the computation.

    Source: Salimans & Kingma, "Weight Normalization", NeurIPS 2016, arXiv:1602.07868, sections 2 and 3.
    """

    features: int
    kernel: Kernel
    way: Way = Kernel.convolve
    std: float = 1.0
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, H, W, I] to [B, H', W', F]."""
        shape = (*self.kernel.size, x.shape[-1], self.features)
        weights = self.param("kernel", nn.initializers.normal(0.05), shape)
        length, bias = jnp.ones(self.features), jnp.zeros(self.features)
        if self.is_initializing():
            y = self._linear(x, weight_norm(weights, length)).astype(weights.dtype)
            std = jnp.std(y, axis=(0, 1, 2))
            length = self.std / jnp.where(std > _LEAST_STD, std, 1.0)
            bias = -jnp.mean(y, axis=(0, 1, 2)) * length
        length, bias = (
            self.param(name, lambda _, first=first: first) for name, first in (("length", length), ("bias", bias))
        )
        y = self._linear(x, weight_norm(weights, length))
        return y + bias.astype(y.dtype)[None, None, None]

    def _linear(self, x: Array, weights: Array) -> Array:
        return self.way(self.kernel, *promote_dtype(x, weights, dtype=self.dtype))


class GatedBlock(nn.Module):
    """A gated residual block (1) of one stream: x [B, H, W, F] -> the same shape.

    Attributes:
        kernel: of its convolutions.
        features: F.
        num_classes: number of classes of the labels; None for a network without labels.
        dropout: dropout rate in training.
        dtype: precision of the computation.
    """

    kernel: Kernel
    features: int
    num_classes: int | None = None
    dropout: float = 0.0
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array, short_cut: Array | None, label: Array | None) -> Array:
        """Maps x [B, H, W, F], features [B, H, W, S] of a short cut and labels [B] to [B, H, W, F]."""
        h = NormedConv(self.features, self.kernel, dtype=self.dtype, name="first")(concat_elu(x))
        if short_cut is not None:
            side = NormedConv(self.features, AT_PLACE, dtype=self.dtype, name="short_cut")
            h = h + side(concat_elu(short_cut))
        h = KeyedDropout(self.dropout, name="Dropout_0")(concat_elu(h))
        h = NormedConv(2 * self.features, self.kernel, std=0.1, dtype=self.dtype, name="second")(h)
        bias = LabelBias(self.num_classes, 2 * self.features, dtype=self.dtype, name="label_bias")(label)
        value, gate = jnp.split(add_bias(h, bias), 2, axis=-1)
        return x + value * nn.sigmoid(gate)


class PixelCNNPlusPlus(nn.Module):
    """PixelCNN++: levels [B, H, W, C] -> outputs [B, H, W, Q].

    Attributes:
        event_shape: (H, W, C) of one image.
        levels: L; levels are scaled to [-1, 1].
        outputs_per_pixel: Q.
        num_classes: number of classes of the labels; None for a network without labels.
        dtype: precision of the computation.
        features: F, width of both streams.
        blocks: number of blocks of each stream and scale in the first half; the second half has as many at the smallest
            scale, and one more at the others.
        scales: number of scales, 1 or more.
        dropout: dropout rate in training.
    """

    event_shape: tuple[int, int, int]
    levels: int
    outputs_per_pixel: int
    num_classes: int | None = None
    dtype: DTypeLike | None = None
    features: int = 160
    blocks: int = 5
    scales: int = 3
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None) -> Array:
        """Maps levels x [B, H, W, C] and labels [B] to outputs [B, H, W, Q]."""
        kept = [self._first_layers(x)]
        for scale in range(self.scales):
            if scale:
                kept.append(self._resample(Kernel.halve, *kept[-1]))
            for _ in range(self.blocks):
                kept.append(self._blocks(*kept[-1], None, None, label))
        down, right = kept.pop()
        for scale in reversed(range(self.scales)):
            for _ in range(self.blocks + (scale < self.scales - 1)):
                down, right = self._blocks(down, right, *kept.pop(), label)
            if scale:
                height, width = kept[-1][0].shape[1:3]
                down, right = (h[:, :height, :width] for h in self._resample(Kernel.double, down, right))
        return NormedConv(self.outputs_per_pixel, AT_PLACE, dtype=self.dtype, name="readout")(nn.elu(right))

    def _first_layers(self, x: Array) -> tuple[Array, Array]:
        """Maps levels [B, H, W, C] to both streams [B, H, W, F], which do not see the pixel itself."""
        image = to_symmetric(x, levels=self.levels, dtype=self.dtype or jnp.result_type(float))
        image = jnp.concatenate([image, jnp.ones_like(image[..., :1])], axis=-1)  # tells the image from the zeros
        down, row_above, column_before = (
            NormedConv(self.features, kernel, dtype=self.dtype)(image) for kernel in (DOWN, ROW, COLUMN)
        )
        return shift_down(down), shift_down(row_above) + shift_right(column_before)

    def _resample(self, way: Way, down: Array, right: Array) -> tuple[Array, Array]:
        down = NormedConv(self.features, DOWN, way, dtype=self.dtype)(down)
        return down, NormedConv(self.features, DOWN_RIGHT, way, dtype=self.dtype)(right)

    def _blocks(
        self, down: Array, right: Array, earlier_down: Array | None, earlier_right: Array | None, label: Array | None
    ) -> tuple[Array, Array]:
        """Applies a block of each stream, the second one with the first's output as a short cut."""
        settings = (self.features, self.num_classes, self.dropout, self.dtype)
        down = GatedBlock(DOWN, *settings)(down, earlier_down, label)
        short_cut = down if earlier_right is None else jnp.concatenate([down, earlier_right], axis=-1)
        return down, GatedBlock(DOWN_RIGHT, *settings)(right, short_cut, label)


def concat_elu(x: Array) -> Array:
    """Returns elu([x, -x]), twice as many features."""
    return nn.elu(jnp.concatenate([x, -x], axis=-1))


def shift_right(x: Array) -> Array:
    """Shifts maps [B, H, W, C] right by a column, with zeros first."""
    return jnp.pad(x[:, :, :-1], [(0, 0), (0, 0), (1, 0), (0, 0)])
