"""The networks inside couplings, from one part of x to the parameters that transform the other.

All end in a layer of zeros, so that a coupling starts as the identity. Those of images are trained inside of scans,
whose derivatives store what they need; `ops.cpu.relu` and `ops.cpu.conv` let them store no masks and no padding.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike

from gm_jax.networks.normalization import weight_norm
from gm_jax.ops.cpu import conv, pointwise, relu
from gm_jax.types import Array

Activation = Callable[[Array], Array]


class MLPConditioner(nn.Module):
    """A perceptron, [B, D] -> [B, out], whose last layer starts at zero.

    Attributes:
        out: width of the output.
        hidden: width of each hidden layer.
        activation: elementwise function after each hidden layer.
        dtype: precision of the computation; the output has the input's dtype.
    """

    out: int
    hidden: tuple[int, ...]
    activation: Activation = nn.relu
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, D] to [B, out]."""
        h = x
        for width in self.hidden:
            h = self.activation(nn.Dense(width, dtype=self.dtype)(h))
        return nn.Dense(self.out, dtype=self.dtype, kernel_init=nn.initializers.zeros)(h).astype(x.dtype)


class Conv(nn.Module):
    """A convolution of odd size that keeps the sides, [B, H, W, I] -> [B, H, W, features]; it is fast in a scan.

    Attributes:
        features: channels of the output.
        size: width and height of the kernel.
        kernel_init: initialiser of the kernel.
        length: where the norm of each output's kernel starts, which is learned apart from its direction; None for a
            kernel that is a parameter itself. (`nn.WeightNorm` loses the direction of a kernel that starts at zero.)
        dtype: precision of the computation.
    """

    features: int
    size: int = 3
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    length: float | None = None
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, H, W, I] to [B, H, W, features]."""
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if self.length is not None:
            length = self.param("length", nn.initializers.constant(self.length), (self.features,))
            kernel = weight_norm(kernel, length)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        side = (self.size // 2, self.size // 2)
        return conv(x, kernel, padding=(side, side)) + bias[None, None, None]


class ConvConditioner(nn.Module):
    """Glow's conditioner: 3x3, 1x1 and 3x3 convolutions, [B, H, W, C] -> [B, H, W, out]; the last starts at zero.

    Attributes:
        out: channels of the output.
        features: channels of the hidden layers.
        dtype: precision of the computation; the output has the input's dtype.
    """

    out: int
    features: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, H, W, C] to [B, H, W, out]."""
        h = relu(Conv(self.features, dtype=self.dtype)(x))
        h = relu(nn.Dense(self.features, dtype=self.dtype, dot_general=_pointwise)(h))
        return Conv(self.out, kernel_init=nn.initializers.zeros, dtype=self.dtype)(h).astype(x.dtype)


class ResNetConditioner(nn.Module):
    """RealNVP's conditioner: a residual network, [B, H, W, C] -> [B, H, W, out]; its last convolution starts at zero.

    It has no batch normalisation, which would make the output for one image depend on the others.

    Attributes:
        out: channels of the output.
        features: channels of the hidden layers.
        blocks: number of residual blocks of two 3x3 convolutions.
        weight_norm: learns length and direction of each output's kernel apart; the lengths start at 1, and at 0 in the
            last convolution (Salimans & Kingma, NeurIPS 2016, arXiv:1602.07868).
        dtype: precision of the computation; the output has the input's dtype.
    """

    out: int
    features: int
    blocks: int
    weight_norm: bool = False
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, H, W, C] to [B, H, W, out]."""

        def conv(features: int, *, last: bool = False) -> Conv:
            settings: dict[str, Any] = {"kernel_init": nn.initializers.zeros} if last else {}
            if self.weight_norm:
                settings = {"length": 0.0 if last else 1.0}
            return Conv(features, **settings, dtype=self.dtype)

        h = conv(self.features)(x)
        for _ in range(self.blocks):
            update = conv(self.features)(relu(h))
            h = h + conv(self.features)(relu(update))
        return conv(self.out, last=True)(relu(h)).astype(x.dtype)


def _pointwise(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    """The product of `nn.Dense`."""
    return pointwise(x, kernel)
