"""The parts of flows: invertible layers and chains of layers; `conditioners` has the networks inside couplings.

A layer is a module with two methods, which share its parameters:

    forward(x) -> (z, log |det dz/dx| [B])      from the data to the latent
    inverse(z) -> (x, log |det dx/dz| [B])      from the latent to the data: sampling

`ops.bijectors` and `ops.splines` hold the formulas; this file holds the parameters and selects the parts of x. The
flows `nice`, `realnvp`, `glow`, `spline_flow` and `autoregressive_flow` are such layers too, from x [B, *event_shape]
to one flat latent z [B, D], which concatenates the parts of a multi-scale latent.

A coupling transforms one half of the channels (or the entries of a mask) with parameters that a `conditioner` computes
from the other half, which stays unchanged. Conditioners end in a layer of zeros, so a flow starts as the identity, up
to its actnorm and 1x1 convolutions.

`Repeated` scans over equal layers with stacked parameters: they compile once and run faster on CPUs than a sequence.
A layer may have a third method, `prepare`, for what depends on its parameters alone. `Repeated` computes it for all
layers at once, before the scan: products of small matrices are then few and large.

`ActNorm` initialises its parameters from the batch given to `init`, as that batch arrives at the layer. So `init` needs
a whole batch and runs it through the flow. Later they are parameters like any other.

Chains of images support reverse-mode differentiation only (`jax.grad`, `jax.jacrev`): `ops.cpu.conv`, `pointwise` and
`relu`, of which their conditioners are made, have no forward mode.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.ops import bijectors, splines
from gm_jax.types import Array, Key

FIXED = "fixed"  # the collection of values that are drawn once and never trained

MakeConditioner = Callable[..., nn.Module]  # (out=...) -> [B, ..., C] -> [B, ..., out]


class Transform(NamedTuple):
    """The elementwise bijector that a coupling applies to its half.

    Attributes:
        forward: (x [B, ..., C], raw [B, ..., C * P], mask=None) -> (z, log_det [B]).
        inverse: (z [B, ..., C], raw [B, ..., C * P], mask=None) -> (x, log_det [B]).
        outputs_per_dim: P, the number of the conditioner's outputs for each dimension.
    """

    forward: Callable[..., tuple[Array, Array]]
    inverse: Callable[..., tuple[Array, Array]]
    outputs_per_dim: int


def additive() -> Transform:
    """Returns NICE's transform, z = x + t."""
    return Transform(bijectors.additive_coupling, bijectors.additive_coupling_inverse, 1)


def affine(*, bound: float) -> Transform:
    """Returns the transform of RealNVP and Glow, z = x exp(log s) + t.

    Args:
        bound: upper bound of |log s|.
    """

    def with_halves(coupling: Callable[..., tuple[Array, Array]]) -> Callable[..., tuple[Array, Array]]:
        return lambda x, raw, mask=None: coupling(x, *jnp.split(raw, 2, axis=-1), bound=bound, mask=mask)

    return Transform(with_halves(bijectors.affine_coupling), with_halves(bijectors.affine_coupling_inverse), 2)


def rational_quadratic(*, num_bins: int, bound: float) -> Transform:
    """Returns the transform of neural spline flows, a monotone rational-quadratic spline.

    Args:
        num_bins: K.
        bound: half the width of the spline's interval; outside it the transform is the identity.
    """
    outputs = 3 * num_bins - 1

    def with_knots(coupling: Callable[..., tuple[Array, Array]]) -> Callable[..., tuple[Array, Array]]:
        return lambda x, raw, mask=None: coupling(x, raw.reshape(*x.shape, outputs), bound=bound, mask=mask)

    return Transform(with_knots(splines.spline_coupling), with_knots(splines.spline_coupling_inverse), outputs)


class Coupling(nn.Module):
    """Transforms the second part of the channels given the first: x [B, ..., C].

    Attributes:
        channels: C, at least 2; the parts are C // 2 and the rest.
        transform: the bijector applied to the second part.
        conditioner: creates the network from the first part to the transform's parameters.
        flipped: transforms the first part given the second instead.
    """

    channels: int
    transform: Transform
    conditioner: MakeConditioner
    flipped: bool = False

    def setup(self) -> None:
        if self.channels < 2:
            raise ValueError(f"a coupling needs two parts, so at least 2 channels, got {self.channels}")
        first = self.channels // 2
        transformed = first if self.flipped else self.channels - first
        self.network = self.conditioner(out=transformed * self.transform.outputs_per_dim)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        return self._couple(self.transform.forward, x)

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        return self._couple(self.transform.inverse, z)

    def _couple(self, transform_fn: Callable[..., tuple[Array, Array]], x: Array) -> tuple[Array, Array]:
        first, second = x[..., : self.channels // 2], x[..., self.channels // 2 :]
        if self.flipped:
            first, log_det = transform_fn(first, self.network(second))
        else:
            second, log_det = transform_fn(second, self.network(first))
        return jnp.concatenate([first, second], axis=-1), log_det


class ActNorm(nn.Module):
    """Activation normalisation of x [B, ..., C]: each channel of the batch given to `init` gets mean 0 and variance 1.

    Attributes:
        channels: C.
        shared_scale: starts with one scale for all channels, which suits channels of one unit, such as pixels.
    """

    channels: int
    shared_scale: bool = False

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        return bijectors.actnorm(x, *self._parameters(x))

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        return bijectors.actnorm_inverse(z, *self._parameters(z))

    def parameters(self) -> tuple[Array, Array]:
        """Returns (shift [C], log_scale [C]), which exist once the layer is initialised."""
        return self.get_variable("params", "shift"), self.get_variable("params", "log_scale")

    @nn.compact
    def _parameters(self, x: Array) -> tuple[Array, Array]:
        def from_batch(index: int) -> Callable[[Key], Array]:
            return lambda key: bijectors.actnorm_from_batch(x, shared_scale=self.shared_scale)[index]

        return self.param("shift", from_batch(0)), self.param("log_scale", from_batch(1))


class InvertibleConv(nn.Module):
    """Glow's invertible 1x1 convolution of x [B, ..., C], which starts as a rotation.

    `init` draws the permutation and the signs of its factors, which are never trained: they lie in the collection
    "fixed".

    Attributes:
        channels: C.
    """

    channels: int

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        return bijectors.invertible_conv(x, self.factors())

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        return bijectors.invertible_conv_inverse(z, self.factors())

    @nn.compact
    def factors(self) -> bijectors.LUFactors:
        """Returns the factors of its matrix."""
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
    """Rearranges squares of 2 x 2 pixels into channels: [B, H, W, C] <-> [B, H/2, W/2, 4 C]."""

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B] = 0)."""
        return bijectors.squeeze(x), _no_log_det(x)

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] = 0)."""
        return bijectors.unsqueeze(z), _no_log_det(z)


class Chain(nn.Module):
    """A sequence of layers, whose log-determinants add.

    Attributes:
        layers: the layers, from the data to the latent.
    """

    layers: Sequence[nn.Module]

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        log_det = _no_log_det(x)
        for layer in self.layers:
            x, more = layer.forward(x)
            log_det += more
        return x, log_det

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        log_det = _no_log_det(z)
        for layer in self.layers[::-1]:
            z, more = layer.inverse(z)
            log_det += more
        return z, log_det


class Repeated(nn.Module):
    """A sequence of equal layers, each with its own parameters, which are stacked on a leading axis.

    Attributes:
        layer: one layer. If it has `prepare(inverse=...)`, its methods take what this returns as their last argument,
            except while it is initialised.
        length: the number of layers.
        remat: stores only the inputs of layers for the backward pass, which computes the rest again.
    """

    layer: nn.Module
    length: int
    remat: bool = False

    def forward(self, x: Array, each: Array | None = None) -> tuple[Array, Array]:
        """Maps x through all layers to (z, log_det [B]); `each` [length, ...] holds one more argument per layer."""
        return self._scan("forward", x, each, reverse=False)

    def inverse(self, z: Array, each: Array | None = None) -> tuple[Array, Array]:
        """Maps z back through all layers, last layer first, to (x, log_det [B] of the inverse)."""
        return self._scan("inverse", z, each, reverse=True)

    def _scan(self, method: str, x: Array, each: Array | None, *, reverse: bool) -> tuple[Array, Array]:
        def step(
            layer: nn.Module, carry: tuple[Array, Array], arguments: Sequence[Any]
        ) -> tuple[tuple[Array, Array], None]:
            x, log_det = carry
            x, more = getattr(layer, method)(x, *arguments)
            return (x, log_det + more), None

        scan = nn.scan(
            nn.remat(step, prevent_cse=False) if self.remat else step,
            variable_axes={"params": 0, FIXED: 0},
            split_rngs={"params": True},
            length=self.length,
            reverse=reverse,
        )
        arguments = [] if each is None else [each]
        if hasattr(self.layer, "prepare") and not self.is_initializing():
            arguments.append(self._prepared(inverse=reverse))
        return scan(self.layer, (x, _no_log_det(x)), arguments)[0]

    def _prepared(self, *, inverse: bool) -> Any:
        prepare = nn.vmap(
            lambda layer: layer.prepare(inverse=inverse),
            variable_axes={"params": 0, FIXED: 0},
            split_rngs={"params": False},
            axis_size=self.length,
        )
        return prepare(self.layer)


def _no_log_det(x: Array) -> Array:
    return jnp.zeros(x.shape[0], x.dtype)
