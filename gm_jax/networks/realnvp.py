"""RealNVP: affine couplings, of points and, in several scales, of images.

Of images the couplings' halves are the squares of a checkerboard, or the first and second half of the channels, and

    stage 1 ... S-1:  three checkerboard couplings, squeeze, three channel couplings; half of the channels is factored
                      out to the latent, and the next stage takes the rest                                        (1)
    stage S:          four checkerboard couplings                                                                 (2)

so that sides must be multiples of 2^(S-1). `MultiScale` is that architecture for any stages; Glow has it too.

The half that is factored out is the second one of the channel couplings: the last of these has just transformed it
given the first, which goes on. The paper asks for half of the variables and leaves open which.

Departures from the paper. Where it normalises the chain by batches an actnorm follows each coupling, so that the
likelihood of one image does not depend on the others; the conditioners have no normalisation. Their features are the
same in every stage, where the paper doubles them each time the sides are halved. The bound of the log-scales is a
number, b tanh(r / b), where the paper learns the factor of its tanh.

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
from gm_jax.networks.couplings import (
    Activation,
    ActNorm,
    Chain,
    Coupling,
    MakeConditioner,
    MLPConditioner,
    Repeated,
    ResNetConditioner,
    Squeeze,
    Transform,
    affine,
)
from gm_jax.ops import bijectors
from gm_jax.types import Array


class RealNVP(nn.Module):
    """Of points: x [B, *event_shape] <-> z [B, D], by pairs of couplings, each half given the other, and an actnorm.

    Attributes:
        event_shape: of one example; D, its size, is at least 2.
        hidden: widths of each coupling's perceptron.
        pairs: how many pairs of couplings.
        bound: of the log-scales.
        activation: elementwise function after each hidden layer.
        dtype: precision of the perceptrons' computation.
    """

    event_shape: tuple[int, ...]
    hidden: tuple[int, ...]
    pairs: int
    bound: float = 2.0
    activation: Activation = nn.relu
    dtype: DTypeLike | None = None

    def setup(self):
        dim = math.prod(self.event_shape)
        conditioner = partial(MLPConditioner, hidden=self.hidden, activation=self.activation, dtype=self.dtype)
        pair = [Coupling(dim, affine(bound=self.bound), conditioner, flipped=flipped) for flipped in (False, True)]
        # Pixels share a unit; the columns of a table do not.
        actnorm = ActNorm(dim, shared_scale=len(self.event_shape) > 1)
        self.layers = Repeated(Chain([*pair, actnorm]), self.pairs)

    def forward(self, x: Array) -> tuple[Array, Array]:
        return self.layers.forward(x.reshape(x.shape[0], -1))

    def inverse(self, z: Array) -> tuple[Array, Array]:
        x, log_det = self.layers.inverse(z)
        return x.reshape(-1, *self.event_shape), log_det


class ImageRealNVP(nn.Module):
    """Of images: x [B, H, W, C] <-> z [B, D], eqs. (1) and (2).

    Attributes:
        event_shape: (H, W, C) of one image.
        scales: S.
        features: channels of the residual networks, in every stage.
        blocks: residual blocks of each.
        bound: of the log-scales.
        dtype: precision of the networks' computation.
    """

    event_shape: tuple[int, int, int]
    scales: int
    features: int
    blocks: int
    bound: float = 2.0
    dtype: DTypeLike | None = None

    def setup(self):
        shapes = squeezed_shapes(self.event_shape, self.scales - 1)
        last = self.event_shape if not shapes else (*shapes[-1][:2], shapes[-1][2] // 2)
        conditioner = partial(ResNetConditioner, features=self.features, blocks=self.blocks, dtype=self.dtype)

        def couplings(mask_fn: MaskFn, channels: int, length: int) -> AlternatingCouplings:
            return AlternatingCouplings(mask_fn, channels, length, affine(bound=self.bound), conditioner)

        stages = [
            Chain([couplings(checkerboard, channels // 4, 3), Squeeze(), couplings(channel_halves, channels, 3)])
            for _, _, channels in shapes
        ]
        self.multi_scale = MultiScale([*stages, couplings(checkerboard, last[2], 4)], [*shapes, last])

    def forward(self, x: Array) -> tuple[Array, Array]:
        return self.multi_scale.forward(x)

    def inverse(self, z: Array) -> tuple[Array, Array]:
        return self.multi_scale.inverse(z)


MaskFn = Callable[[Array], Array]  # x [B, H, W, C] -> the mask of the first coupling, broadcastable


def checkerboard(x: Array) -> Array:
    """Every other pixel."""
    return bijectors.checkerboard_mask(*x.shape[1:3])


def channel_halves(x: Array) -> Array:
    """The second half of the channels."""
    return bijectors.channel_mask(x.shape[3])


class AlternatingCouplings(nn.Module):
    """Couplings under a mask, its complement, the mask ..., each followed by an actnorm: x [B, H, W, C] <-> z.

    Attributes:
        mask_fn: the mask.
        channels: C.
        length: how many couplings.
        transform: what they do.
        conditioner: makes their networks.
    """

    mask_fn: MaskFn
    channels: int
    length: int
    transform: Transform
    conditioner: MakeConditioner

    def setup(self):
        step = MaskedCoupling(self.channels, self.transform, self.conditioner)
        self.couplings = Repeated(step, self.length)

    def forward(self, x: Array) -> tuple[Array, Array]:
        return self.couplings.forward(x, self._masks(x))

    def inverse(self, z: Array) -> tuple[Array, Array]:
        return self.couplings.inverse(z, self._masks(z))

    def _masks(self, x: Array) -> Array:
        mask = self.mask_fn(x)
        return jnp.stack([mask if i % 2 == 0 else ~mask for i in range(self.length)])


class MaskedCoupling(nn.Module):
    """Transforms the entries of x [B, H, W, C] where a mask is True, given the others; then an actnorm.

    Attributes:
        channels: C.
        transform: what is done to them.
        conditioner: makes the network from x, with zeros where the mask is True, to the transform's parameters.
    """

    channels: int
    transform: Transform
    conditioner: MakeConditioner

    def setup(self):
        self.network = self.conditioner(out=self.channels * self.transform.outputs_per_dim)
        self.actnorm = ActNorm(self.channels)

    def forward(self, x: Array, mask: Array) -> tuple[Array, Array]:
        x, log_det = self.transform.forward(x, self.network(jnp.where(mask, 0.0, x)), mask=mask)
        z, more = self.actnorm.forward(x)
        return z, log_det + more

    def inverse(self, z: Array, mask: Array) -> tuple[Array, Array]:
        x, log_det = self.actnorm.inverse(z)
        x, more = self.transform.inverse(x, self.network(jnp.where(mask, 0.0, x)), mask=mask)
        return x, log_det + more


class MultiScale(nn.Module):
    """Stages one after the other, each but the last of which gives half of its channels to the latent, x <-> z [B, D].

    Attributes:
        stages: layers of images.
        shapes: (H, W, C) that each stage gives.
        priors: a layer for each stage but the last: forward(part, h) makes a standard normal of the half that is
            factored out, knowing the half h that goes on; none, where the parts are latents as they are.
    """

    stages: Sequence[nn.Module]
    shapes: Sequence[tuple[int, int, int]]
    priors: Sequence[nn.Module] = ()

    def forward(self, x: Array) -> tuple[Array, Array]:
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
        """The parts of the latent, as images: half of each stage's channels, and all of the last's."""
        shapes = [(height, width, channels // 2) for height, width, channels in self.shapes[:-1]] + [self.shapes[-1]]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        return [part.reshape(-1, *shape) for part, shape in zip(jnp.split(z, ends[:-1], axis=-1), shapes, strict=True)]


def squeezed_shapes(event_shape: tuple[int, int, int], squeezes: int) -> list[tuple[int, int, int]]:
    """(H, W, C) after each squeeze, where half of the channels is factored out after each.

    Raises:
        UserError: the event is no image, or its sides cannot be halved so often.
    """
    if len(event_shape) != 3:
        raise UserError(f"a flow in several scales is for images, not for data of shape {event_shape}.")
    height, width, channels = event_shape
    if height % 2**squeezes or width % 2**squeezes:
        most = next(n for n in reversed(range(squeezes)) if not (height % 2**n or width % 2**n))
        if most == 0:
            raise UserError(f"images of {height} x {width} cannot be halved: only RealNVP of one scale takes them.")
        raise UserError(f"images of {height} x {width} can be halved {most} times, not {squeezes}: take fewer scales.")
    # Each squeeze makes four channels of one, and two of them stay.
    return [(height // 2**n, width // 2**n, channels * 2 ** (n + 1)) for n in range(1, squeezes + 1)]
