"""What flows are built of: layers with a way there and a way back, the networks inside couplings, and chains of layers.

A layer is a module with two methods, which share its parameters:

    forward(x) -> (z, log |det dz/dx| [B])      from the data towards the latent
    inverse(z) -> (x, log |det dx/dz| [B])      back: what sampling does

What they compute is in `ops.bijectors` and `ops.splines`; here are the parameters, and where in x they come from. The
flows themselves, `nice`, `realnvp`, `glow`, `spline_flow`, are such layers too, from x [B, *event_shape] to one flat
latent z [B, D], with the parts of a multi-scale latent side by side.

A coupling transforms one half of the channels (or of the entries of a mask) with what a `conditioner` makes of the
other, and leaves that other half as it is. Conditioners end in a layer of zeros: a flow begins as the identity, up to
its actnorm and 1x1 convolutions.

Layers that repeat are one layer in a scan, their parameters stacked (`Repeated`): compiled once, and on CPU some twenty
times as fast as small layers one after the other.

`ActNorm` takes its first parameters from the batch that `init` is given, as it arrives at that layer: `init` must see a
whole batch, and runs it through the flow. From then on they are parameters like any other.

Chains are differentiated in reverse, by `jax.grad` and `jax.jacrev`: `ops.convolution.conv` has no forward mode.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.ops import bijectors, splines
from gm_jax.ops.convolution import conv
from gm_jax.types import Array

FIXED = "fixed"  # the collection of what is drawn once and not trained

Activation = Callable[[Array], Array]
MakeConditioner = Callable[..., nn.Module]  # (out=...) -> [B, ..., C] -> [B, ..., out]


class Transform(NamedTuple):
    """What a coupling does to its half: an elementwise bijector with parameters.

    Attributes:
        forward: (x [B, ..., C], raw [B, ..., C * P], mask=None) -> (z, log_det [B]).
        inverse: (z [B, ..., C], raw [B, ..., C * P], mask=None) -> (x, log_det [B]).
        outputs_per_dim: P, how many outputs of the conditioner each dimension takes.
    """

    forward: Callable[..., tuple[Array, Array]]
    inverse: Callable[..., tuple[Array, Array]]
    outputs_per_dim: int


def additive() -> Transform:
    """NICE's: z = x + t."""
    return Transform(bijectors.additive_coupling, bijectors.additive_coupling_inverse, 1)


def affine(*, bound: float) -> Transform:
    """RealNVP's and Glow's: z = x exp(log s) + t.

    Args:
        bound: of |log s|.
    """

    def with_halves(coupling: Callable) -> Callable:
        return lambda x, raw, mask=None: coupling(x, *jnp.split(raw, 2, axis=-1), bound=bound, mask=mask)

    return Transform(with_halves(bijectors.affine_coupling), with_halves(bijectors.affine_coupling_inverse), 2)


def rational_quadratic(*, num_bins: int, bound: float) -> Transform:
    """Neural spline flows': a monotone rational-quadratic spline.

    Args:
        num_bins: K.
        bound: half the width of the interval that is bent; outside it x stays where it is.
    """
    outputs = 3 * num_bins - 1

    def with_knots(coupling: Callable) -> Callable:
        return lambda x, raw, mask=None: coupling(x, raw.reshape(*x.shape, outputs), bound=bound, mask=mask)

    return Transform(with_knots(splines.spline_coupling), with_knots(splines.spline_coupling_inverse), outputs)


class MLPConditioner(nn.Module):
    """A perceptron, [B, D] -> [B, out], its last layer zero at first.

    Attributes:
        out: width of the output.
        hidden: width of each hidden layer.
        activation: elementwise function after each hidden layer.
        dtype: precision of the computation; the output has that of the input.
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
    """A convolution of odd size that keeps the sides, [B, H, W, I] -> [B, H, W, features], fast within a scan.

    Attributes:
        features: channels of the output.
        size: of the kernel.
        kernel_init: initialiser of the kernel.
        dtype: precision of the computation.
    """

    features: int
    size: int = 3
    kernel_init: Callable = nn.initializers.lecun_normal()
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, H, W, I] to [B, H, W, features]."""
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        side = (self.size // 2, self.size // 2)
        return conv(x, kernel, padding=(side, side)) + bias[None, None, None]


class ConvConditioner(nn.Module):
    """Glow's: 3x3, 1x1 and 3x3 convolutions, [B, H, W, C] -> [B, H, W, out], the last zero at first.

    Attributes:
        out: channels of the output.
        features: channels in between.
        dtype: precision of the computation; the output has that of the input.
    """

    out: int
    features: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, H, W, C] to [B, H, W, out]."""
        h = nn.relu(Conv(self.features, dtype=self.dtype)(x))
        # On CPU the gradient of a product of flat arrays is twice as fast as that of one with three leading axes.
        flat = nn.relu(nn.Dense(self.features, dtype=self.dtype)(h.reshape(-1, self.features)))
        h = flat.reshape(h.shape)
        return Conv(self.out, kernel_init=nn.initializers.zeros, dtype=self.dtype)(h).astype(x.dtype)


class ResNetConditioner(nn.Module):
    """RealNVP's: a residual network, [B, H, W, C] -> [B, H, W, out], its last convolution zero at first.

    It has no batch normalisation: what the network says of one image would depend on the others.

    Attributes:
        out: channels of the output.
        features: channels in between.
        blocks: residual blocks of two 3x3 convolutions.
        dtype: precision of the computation; the output has that of the input.
    """

    out: int
    features: int
    blocks: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, H, W, C] to [B, H, W, out]."""
        h = Conv(self.features, dtype=self.dtype)(x)
        for _ in range(self.blocks):
            update = Conv(self.features, dtype=self.dtype)(nn.relu(h))
            h = h + Conv(self.features, dtype=self.dtype)(nn.relu(update))
        return Conv(self.out, kernel_init=nn.initializers.zeros, dtype=self.dtype)(nn.relu(h)).astype(x.dtype)


class Coupling(nn.Module):
    """Transforms the second part of the channels given the first: x [B, ..., C].

    Attributes:
        channels: C, at least 2; the parts are C // 2 and the rest.
        transform: what is done to the second part.
        conditioner: makes the network from the first part to the transform's parameters.
        flipped: transforms the first part given the second.
    """

    channels: int
    transform: Transform
    conditioner: MakeConditioner
    flipped: bool = False

    def setup(self):
        first = self.channels // 2
        transformed = first if self.flipped else self.channels - first
        self.network = self.conditioner(out=transformed * self.transform.outputs_per_dim)

    def forward(self, x: Array) -> tuple[Array, Array]:
        return self._couple(self.transform.forward, x)

    def inverse(self, z: Array) -> tuple[Array, Array]:
        return self._couple(self.transform.inverse, z)

    def _couple(self, transform_fn: Callable, x: Array) -> tuple[Array, Array]:
        first, second = x[..., : self.channels // 2], x[..., self.channels // 2 :]
        if self.flipped:
            first, log_det = transform_fn(first, self.network(second))
        else:
            second, log_det = transform_fn(second, self.network(first))
        return jnp.concatenate([first, second], axis=-1), log_det


class ActNorm(nn.Module):
    """Activation normalisation of x [B, ..., C]: mean 0 and variance 1 of each channel on the batch given to `init`.

    Attributes:
        channels: C.
        shared_scale: begins with one scale for all channels: for channels of one unit, as pixels.
    """

    channels: int
    shared_scale: bool = False

    def forward(self, x: Array) -> tuple[Array, Array]:
        return bijectors.actnorm(x, *self._parameters(x))

    def inverse(self, z: Array) -> tuple[Array, Array]:
        return bijectors.actnorm_inverse(z, *self._parameters(z))

    @nn.compact
    def _parameters(self, x: Array) -> tuple[Array, Array]:
        def from_batch(index: int) -> Callable:
            return lambda key: bijectors.actnorm_from_batch(x, shared_scale=self.shared_scale)[index]

        return self.param("shift", from_batch(0)), self.param("log_scale", from_batch(1))


class InvertibleConv(nn.Module):
    """Glow's invertible 1x1 convolution of x [B, ..., C], a rotation at first.

    The permutation and the signs of its factors are drawn by `init` and never trained: they are in the collection
    "fixed".

    Attributes:
        channels: C.
    """

    channels: int

    def forward(self, x: Array) -> tuple[Array, Array]:
        return bijectors.invertible_conv(x, self._factors())

    def inverse(self, z: Array) -> tuple[Array, Array]:
        return bijectors.invertible_conv_inverse(z, self._factors())

    @nn.compact
    def _factors(self) -> bijectors.LUFactors:
        key = self.make_rng("params") if self.is_initializing() else jax.random.key(0)

        def drawn(name: str) -> Array:
            return getattr(bijectors.lu_factors(jax.random.orthogonal(key, self.channels)), name)

        factors = {}
        for name in ("lower", "upper", "log_abs_diagonal"):
            factors[name] = self.param(name, lambda _, name=name: drawn(name))
        for name in ("sign", "permutation"):
            factors[name] = self.variable(FIXED, name, drawn, name).value
        return bijectors.LUFactors(**factors)


class Squeeze(nn.Module):
    """Squares of 2 x 2 pixels into channels: [B, H, W, C] <-> [B, H/2, W/2, 4 C]."""

    def forward(self, x: Array) -> tuple[Array, Array]:
        return bijectors.squeeze(x), _no_log_det(x)

    def inverse(self, z: Array) -> tuple[Array, Array]:
        return bijectors.unsqueeze(z), _no_log_det(z)


class Chain(nn.Module):
    """Layers one after the other; their log-determinants add.

    Attributes:
        layers: the first is next to the data.
    """

    layers: Sequence[nn.Module]

    def forward(self, x: Array) -> tuple[Array, Array]:
        log_det = _no_log_det(x)
        for layer in self.layers:
            x, more = layer.forward(x)
            log_det += more
        return x, log_det

    def inverse(self, z: Array) -> tuple[Array, Array]:
        log_det = _no_log_det(z)
        for layer in self.layers[::-1]:
            z, more = layer.inverse(z)
            log_det += more
        return z, log_det


class Repeated(nn.Module):
    """A layer again and again, each time with parameters of its own, stacked on a leading axis.

    Attributes:
        layer: one layer.
        length: how many.
    """

    layer: nn.Module
    length: int

    def forward(self, x: Array, each: Array | None = None) -> tuple[Array, Array]:
        """Runs x through all layers; `each` [length, ...] holds one more argument for each of them."""
        return self._scan("forward", x, each, reverse=False)

    def inverse(self, z: Array, each: Array | None = None) -> tuple[Array, Array]:
        """Runs z back through all layers, the last one first."""
        return self._scan("inverse", z, each, reverse=True)

    def _scan(self, method: str, x: Array, each: Array | None, *, reverse: bool) -> tuple[Array, Array]:
        def step(layer: nn.Module, carry: tuple[Array, Array], argument: Array | None):
            x, log_det = carry
            x, more = getattr(layer, method)(x) if argument is None else getattr(layer, method)(x, argument)
            return (x, log_det + more), None

        scan = nn.scan(
            step,
            variable_axes={"params": 0, FIXED: 0},
            split_rngs={"params": True},
            length=self.length,
            reverse=reverse,
        )
        return scan(self.layer, (x, _no_log_det(x)), each)[0]


def _no_log_det(x: Array) -> Array:
    return jnp.zeros(x.shape[0], x.dtype)
