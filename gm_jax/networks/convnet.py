"""Convolutional encoder and decoder for small images: each stage halves or doubles both sides.

Both keep the contract of `mlp.py`: encoders return (mean [B, Z], log_var [B, Z]); decoders return [B, H, W, C * P], the
P parameters of each dimension as P blocks on the last axis. Sides must be divisible by 2 ** stages; two stages suit
8x8, 28x28 and 32x32.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.errors import UserError
from gm_jax.networks.convolution import Conv
from gm_jax.ops.bijectors import unsqueeze
from gm_jax.types import Array


class ConvEncoder(nn.Module):
    """The moments of a diagonal normal q(z|x): [B, H, W, C] -> (mean [B, Z], log_var [B, Z]).

    Attributes:
        features: channels of each stride-2 stage, from the image inwards.
        latent_dim: Z.
        hidden: width of the dense layer before the moments.
        activation: elementwise function after each layer but the last.
        dtype: precision of the computation.
    """

    features: tuple[int, ...]
    latent_dim: int
    hidden: int = 256
    activation: Callable[[Array], Array] = nn.relu
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Maps scaled floats x [B, H, W, C] to (mean [B, Z], log_var [B, Z]).

        Raises:
            UserError: x is not a batch of images, or the stages cannot halve its sides.
        """
        check_sides(x.shape[1:], stages=len(self.features))
        for width in self.features:
            x = self.activation(Conv(width, (3, 3), strides=(2, 2), dtype=self.dtype)(x))
        x = x.reshape(x.shape[0], -1)
        x = self.activation(nn.Dense(self.hidden, dtype=self.dtype)(x))
        mean, log_var = jnp.split(nn.Dense(2 * self.latent_dim, dtype=self.dtype)(x), 2, axis=-1)
        return mean, log_var


class ConvDecoder(nn.Module):
    """The parameters of p(x|z): [B, Z] -> [B, H, W, C * outputs_per_dim].

    Sides double by sub-pixel convolution (Shi et al., CVPR 2016, arXiv:1609.05158): a 3x3 convolution to four times the
    channels, rearranged into 2x2 pixels. It expresses the linear maps of a transposed convolution with kernel 6 and
    stride 2, and is faster on a CPU.

    Attributes:
        features: channels of each stage from the latents outwards; the first stage has the smallest map.
        event_shape: (H, W, C) of one image.
        outputs_per_dim: P, the number of parameters of the likelihood for each dimension of x.
        hidden: width of the dense layer after the latents.
        activation: elementwise function after each layer but the last.
        dtype: precision of the computation.
    """

    features: tuple[int, ...]
    event_shape: tuple[int, ...]
    outputs_per_dim: int = 1
    hidden: int = 256
    activation: Callable[[Array], Array] = nn.relu
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Maps z [B, Z] to [B, H, W, C * P].

        Raises:
            UserError: event_shape is not the shape of an image, or the stages cannot reach its sides.
        """
        stages = len(self.features)
        check_sides(self.event_shape, stages=stages)
        height, width, channels = self.event_shape
        first = (height // 2**stages, width // 2**stages, self.features[0])
        h = self.activation(nn.Dense(self.hidden, dtype=self.dtype)(z))
        h = self.activation(nn.Dense(first[0] * first[1] * first[2], dtype=self.dtype)(h))
        h = h.reshape(z.shape[0], *first)
        for out in self.features[1:]:
            h = self.activation(self._double(h, out))
        return self._double(h, channels * self.outputs_per_dim)

    def _double(self, h: Array, out: int) -> Array:
        """Doubles both sides by sub-pixel convolution: [B, H, W, D] -> [B, 2H, 2W, out]."""
        return unsqueeze(Conv(4 * out, (3, 3), dtype=self.dtype)(h))


def check_sides(event_shape: tuple[int, ...], *, stages: int) -> None:
    """Raises a UserError if an event is not an image, or if its sides cannot be halved `stages` times."""
    if len(event_shape) != 3:
        raise UserError(
            f"a convolutional network takes images [height, width, channels], not examples of shape {event_shape}\n"
            "use the fully connected network for these data."
        )
    height, width, _ = event_shape
    multiple = 2**stages
    if height % multiple or width % multiple:
        raise UserError(
            f"images of {height}x{width} do not fit a convolutional network of {stages} stages: "
            f"both sides must be divisible by {multiple}\n"
            "use fewer stages, or the fully connected network."
        )
