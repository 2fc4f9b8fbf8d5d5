"""RealNVP: affine couplings of points, and of images at several scales.

For images the couplings split x by a checkerboard, or into the first and second half of the channels:

    stage 1 ... S-1:  three checkerboard couplings, squeeze, three channel couplings; half of the channels is factored
                      out to the latent, and the next stage takes the rest                                        (1)
    stage S:          four checkerboard couplings                                                                 (2)

Sides must be multiples of 2^(S-1). `MultiScale` is this architecture for any stages; Glow uses it too.

The second half of the channels is factored out: the last channel coupling has just transformed it given the first half,
which continues. The paper factors out half of the variables but does not state which.

Departures from the paper. An actnorm follows each coupling in place of batch normalisation, so the likelihood of one
image does not depend on the others; the conditioners have no normalisation, or that of weights. All stages have the
same number of features, while the paper doubles it each time the sides are halved. The log-scales are b tanh(r / b)
with a fixed bound b, while the paper learns the factor of its tanh.

Source: Dinh, Sohl-Dickstein & Bengio, "Density Estimation Using Real NVP", ICLR 2017, arXiv:1605.08803.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gm_jax.errors import UserError
from gm_jax.networks.conditioners import Activation, MLPConditioner, ResNetConditioner
from gm_jax.networks.couplings import (
    ActNorm,
    Chain,
    Coupling,
    MakeConditioner,
    Repeated,
    Squeeze,
    Transform,
    affine,
)
from gm_jax.ops import bijectors
from gm_jax.types import Array


class RealNVP(nn.Module):
    """RealNVP for points: x [B, *event_shape] <-> z [B, D]. Each block is a pair of couplings and an actnorm.

    Attributes:
        event_shape: shape of one example; its size D is at least 2.
        hidden: widths of each coupling's perceptron.
        pairs: number of pairs of couplings, which transform each half given the other.
        bound: b, the bound of the log-scales.
        activation: elementwise function after each hidden layer.
        dtype: precision of the perceptrons' computation.
    """

    event_shape: tuple[int, ...]
    hidden: tuple[int, ...]
    pairs: int
    bound: float = 2.0
    activation: Activation = nn.relu
    dtype: DTypeLike | None = None

    def setup(self) -> None:
        dim = math.prod(self.event_shape)
        conditioner = partial(MLPConditioner, hidden=self.hidden, activation=self.activation, dtype=self.dtype)
        pair = [Coupling(dim, affine(bound=self.bound), conditioner, flipped=flipped) for flipped in (False, True)]
        # Pixels share one unit; the columns of a table do not.
        actnorm = ActNorm(dim, shared_scale=len(self.event_shape) > 1)
        self.layers = Repeated(Chain([*pair, actnorm]), self.pairs)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        return self.layers.forward(x.reshape(x.shape[0], -1))

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        x, log_det = self.layers.inverse(z)
        return x.reshape(-1, *self.event_shape), log_det


class ImageRealNVP(nn.Module):
    """RealNVP for images: x [B, H, W, C] <-> z [B, D], eqs. (1) and (2).

    Attributes:
        event_shape: (H, W, C) of one image.
        scales: S.
        features: channels of the residual networks, equal in every stage.
        blocks: residual blocks of each network.
        bound: b, the bound of the log-scales.
        weight_norm: of the convolutions, see `conditioners.ResNetConditioner`.
        dtype: precision of the networks' computation.
    """

    event_shape: tuple[int, int, int]
    scales: int
    features: int
    blocks: int
    bound: float = 2.0
    weight_norm: bool = False
    dtype: DTypeLike | None = None

    def setup(self) -> None:
        shapes = squeezed_shapes(self.event_shape, self.scales - 1)
        last = self.event_shape if not shapes else (*shapes[-1][:2], shapes[-1][2] // 2)
        settings = {"features": self.features, "blocks": self.blocks, "weight_norm": self.weight_norm}
        conditioner = partial(ResNetConditioner, **settings, dtype=self.dtype)

        def couplings(mask_fn: MaskFn, channels: int, length: int) -> AlternatingCouplings:
            return AlternatingCouplings(mask_fn, channels, length, affine(bound=self.bound), conditioner)

        stages = [
            Chain([couplings(checkerboard, channels // 4, 3), Squeeze(), couplings(channel_halves, channels, 3)])
            for _, _, channels in shapes
        ]
        self.multi_scale = MultiScale([*stages, couplings(checkerboard, last[2], 4)], [*shapes, last])

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        return self.multi_scale.forward(x)

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        return self.multi_scale.inverse(z)


MaskFn = Callable[[Array], Array]  # x [B, H, W, C] -> the first coupling's mask, of a shape that broadcasts to x


def checkerboard(x: Array) -> Array:
    """Returns the mask of every other pixel."""
    return bijectors.checkerboard_mask(*x.shape[1:3])


def channel_halves(x: Array) -> Array:
    """Returns the mask of the second half of the channels."""
    return bijectors.channel_mask(x.shape[3])


class AlternatingCouplings(nn.Module):
    """Couplings that alternate between a mask and its complement, each followed by an actnorm: x [B, H, W, C] <-> z.

    Attributes:
        mask_fn: computes the mask.
        channels: C.
        length: number of couplings.
        transform: the bijector that they apply.
        conditioner: creates their networks.
    """

    mask_fn: MaskFn
    channels: int
    length: int
    transform: Transform
    conditioner: MakeConditioner

    def setup(self) -> None:
        step = MaskedCoupling(self.channels, self.transform, self.conditioner)
        self.couplings = Repeated(step, self.length)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        return self.couplings.forward(x, self._masks(x))

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        return self.couplings.inverse(z, self._masks(z))

    def _masks(self, x: Array) -> Array:
        mask = self.mask_fn(x)
        return jnp.stack([mask if i % 2 == 0 else ~mask for i in range(self.length)])


class MaskedCoupling(nn.Module):
    """Transforms the entries of x [B, H, W, C] where a mask is True, given the others, and applies an actnorm.

    Attributes:
        channels: C.
        transform: the bijector applied to the masked entries.
        conditioner: creates the network from x, with zeros where the mask is True, to the transform's parameters.
    """

    channels: int
    transform: Transform
    conditioner: MakeConditioner

    def setup(self) -> None:
        self.network = self.conditioner(out=self.channels * self.transform.outputs_per_dim)
        self.actnorm = ActNorm(self.channels)

    def forward(self, x: Array, mask: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        x, log_det = self.transform.forward(x, self.network(jnp.where(mask, 0.0, x)), mask=mask)
        z, more = self.actnorm.forward(x)
        return z, log_det + more

    def inverse(self, z: Array, mask: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        x, log_det = self.actnorm.inverse(z)
        x, more = self.transform.inverse(x, self.network(jnp.where(mask, 0.0, x)), mask=mask)
        return x, log_det + more


class MultiScale(nn.Module):
    """A sequence of stages, x <-> z [B, D]; each stage but the last factors out half of its channels to the latent.

    Attributes:
        stages: layers of images.
        shapes: (H, W, C) of each stage's output.
        priors: a layer for each stage but the last, or none; forward(part, h) standardises the half that is factored
            out, given the half h that continues. Without priors the parts are latents unchanged.
    """

    stages: Sequence[nn.Module]
    shapes: Sequence[tuple[int, int, int]]
    priors: Sequence[nn.Module] = ()

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        parts, log_det = [], jnp.zeros(x.shape[0], x.dtype)
        for i, stage in enumerate(self.stages):
            x, more = stage.forward(x)
            log_det += more
            if i + 1 < len(self.stages):
                x, part = jnp.split(x, 2, axis=-1)
                if self.priors:
                    part, more = self.priors[i].forward(part, x)
                    log_det += more
                parts.append(part)
        return jnp.concatenate([part.reshape(x.shape[0], -1) for part in (*parts, x)], axis=-1), log_det

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        *parts, x = self._split(z)
        log_det = jnp.zeros(z.shape[0], z.dtype)
        for i in reversed(range(len(self.stages))):
            if i + 1 < len(self.stages):
                part = parts[i]
                if self.priors:
                    part, more = self.priors[i].inverse(part, x)
                    log_det += more
                x = jnp.concatenate([x, part], axis=-1)
            x, more = self.stages[i].inverse(x)
            log_det += more
        return x, log_det

    def _split(self, z: Array) -> list[Array]:
        """Splits the latent into images: half of each stage's channels, and all channels of the last stage."""
        shapes = [(height, width, channels // 2) for height, width, channels in self.shapes[:-1]] + [self.shapes[-1]]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        return [part.reshape(-1, *shape) for part, shape in zip(jnp.split(z, ends[:-1], axis=-1), shapes, strict=True)]


def squeezed_shapes(event_shape: tuple[int, int, int], squeezes: int) -> list[tuple[int, int, int]]:
    """Returns (H, W, C) after each squeeze, if half of the channels is factored out after each.

    Raises:
        UserError: the event is not an image, or its sides cannot be halved so often.
    """
    if len(event_shape) != 3:
        raise UserError(f"a flow of several scales needs images, not data of shape {event_shape}: choose another flow.")
    height, width, channels = event_shape
    if height % 2**squeezes or width % 2**squeezes:
        most = next(n for n in reversed(range(squeezes)) if not (height % 2**n or width % 2**n))
        if most == 0:
            raise UserError(f"images of {height} x {width} cannot be halved: use RealNVP with one scale.")
        raise UserError(f"images of {height} x {width} can be halved {most} times, not {squeezes}: use fewer scales.")
    # Each squeeze turns one channel into four, and two of them continue.
    return [(height // 2**n, width // 2**n, channels * 2 ** (n + 1)) for n in range(1, squeezes + 1)]
