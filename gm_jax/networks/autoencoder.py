"""A convolutional autoencoder whose latents are a small image: the first stage of latent diffusion and of VQ-VAE.

Images [H, W, C] become latents [H / f, W / f, Z] with f = p 2 ** (levels - 1): squares of p x p pixels, whose numbers
are the channels of one place, then residual blocks at each level, halved by convolutions of stride 2 and doubled by
repeated places and a convolution. p is 1 in the source; 2 is cheaper. The networks keep the contract of `mlp.py`, with
latents flattened in raster order: `SpatialEncoder` returns (mean [B, D], log_var [B, D]), D = H / f * W / f * Z, and
`SpatialCodeEncoder`, for latents without a distribution, [B, D].

Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022, arXiv:2112.10752,
    appendix G; code CompVis/latent-diffusion, ldm/modules/diffusionmodules/model.py.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from gm_jax.errors import UserError
from gm_jax.networks.attention import SelfAttention
from gm_jax.networks.convnet import check_sides
from gm_jax.networks.convolution import Conv
from gm_jax.networks.normalization import GroupNorm
from gm_jax.networks.unet import ResidualBlock, upsample_nearest
from gm_jax.ops.bijectors import squeeze, unsqueeze
from gm_jax.types import Array


class SpatialEncoder(nn.Module):
    """The moments of q(z|x), whose latents are an image: [B, H, W, C] -> (mean [B, D], log_var [B, D]).

    Attributes:
        features: channels of each level, from the image inwards; each level except the last halves the sides.
        channels: Z.
        blocks: residual blocks of each level.
        groups: of the normalisations; they divide all features.
        attention: whether the smallest level has self-attention.
        patch: p, 1 or a power of 2.
        dtype: precision of the computation.
        remat: stores only the inputs of blocks and attention for the backward pass, which computes the rest again.
    """

    features: tuple[int, ...]
    channels: int
    blocks: int = 1
    groups: int = 8
    attention: bool = False
    patch: int = 1
    dtype: DTypeLike | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Maps scaled floats x [B, H, W, C] to (mean [B, D], log_var [B, D]).

        Raises:
            UserError: x is not a batch of images, or its sides cannot be halved so often.
        """
        settings = (self.blocks, self.groups, self.attention, self.patch, self.dtype, self.remat)
        moments = _encoded(x, self.features, 2 * self.channels, "moments", *settings)
        mean, log_var = jnp.split(moments, 2, axis=-1)
        return mean.reshape(len(x), -1), log_var.reshape(len(x), -1)


class SpatialCodeEncoder(nn.Module):
    """Vectors z at the places of an image, which a quantiser maps to codes: [B, H, W, C] -> [B, D].

    Attributes:
        features: channels of each level, from the image inwards; each level except the last halves the sides.
        channels: Z, the numbers of a vector.
        blocks: residual blocks of each level.
        groups: of the normalisations; they divide all features.
        attention: whether the smallest level has self-attention.
        patch: p, 1 or a power of 2.
        dtype: precision of the computation.
        remat: stores only the inputs of blocks and attention for the backward pass, which computes the rest again.
    """

    features: tuple[int, ...]
    channels: int
    blocks: int = 1
    groups: int = 8
    attention: bool = False
    patch: int = 1
    dtype: DTypeLike | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps scaled floats x [B, H, W, C] to z [B, D], place by place.

        Raises:
            UserError: x is not a batch of images, or its sides cannot be halved so often.
        """
        settings = (self.blocks, self.groups, self.attention, self.patch, self.dtype, self.remat)
        return _encoded(x, self.features, self.channels, "vectors", *settings).reshape(len(x), -1)


class SpatialDecoder(nn.Module):
    """The parameters of p(x|z): [B, D] -> [B, H, W, C * outputs_per_dim].

    Attributes:
        features: channels of each level from the image inwards, as the encoder has them.
        event_shape: (H, W, C) of one image.
        channels: Z.
        outputs_per_dim: P, the number of parameters of the likelihood for each dimension of x.
        blocks: residual blocks of each level; it has one more, as the source does.
        groups: of the normalisations.
        attention: whether the smallest level has self-attention.
        patch: p, 1 or a power of 2.
        dtype: precision of the computation.
        remat: stores only the inputs of blocks and attention for the backward pass, which computes the rest again.
    """

    features: tuple[int, ...]
    event_shape: tuple[int, ...]
    channels: int
    outputs_per_dim: int = 1
    blocks: int = 1
    groups: int = 8
    attention: bool = False
    patch: int = 1
    dtype: DTypeLike | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Maps z [B, D] to [B, H, W, C * P].

        Raises:
            UserError: event_shape is not the shape of an image, or its sides cannot be halved so often.
        """
        levels = len(self.features)
        height, width, _ = latent_shape(self.event_shape, levels=levels, channels=self.channels, patch=self.patch)
        conv = partial(Conv, kernel_size=(3, 3), dtype=self.dtype)
        h = Conv(self.channels, (1, 1), dtype=self.dtype, name="latents")(z.reshape(len(z), height, width, -1))
        h = conv(self.features[-1], name="first")(h)
        block = _block(self.groups, self.dtype, self.remat)
        h = _middle(h, block, self.groups, self.attention, self.dtype, self.remat)
        for level, channels in reversed(list(enumerate(self.features))):
            for i in range(self.blocks + 1):
                h = block(channels, name=f"up_{level}_{i}")(h)
            if level > 0:
                h = conv(channels, name=f"double_{level}")(upsample_nearest(h))
        h = nn.silu(GroupNorm(self.groups, dtype=self.dtype, name="norm")(h))
        h = conv(self.patch**2 * self.event_shape[-1] * self.outputs_per_dim, name="last")(h)
        for _ in range(self.patch.bit_length() - 1):
            h = unsqueeze(h)
        return h


def latent_shape(event_shape: tuple[int, ...], *, levels: int, channels: int, patch: int = 1) -> tuple[int, int, int]:
    """Returns the shape of the latents of an image.

    Args:
        event_shape: (H, W, C) of one image.
        levels: of both networks.
        channels: Z.
        patch: p.
    Returns:
        (H / f, W / f, Z) with f = p 2 ** (levels - 1).
    Raises:
        UserError: event_shape is not the shape of an image, or its sides cannot be halved so often; or p is not a power
            of 2.
    """
    if patch < 1 or patch & (patch - 1):
        raise UserError(f"squares of {patch} x {patch} pixels do not fit: use 1, 2 or 4.")
    check_sides(event_shape, stages=levels - 1 + patch.bit_length() - 1)
    factor = patch * 2 ** (levels - 1)
    return event_shape[0] // factor, event_shape[1] // factor, channels


def _encoded(
    x: Array,
    features: tuple[int, ...],
    outputs: int,
    name: str,
    blocks: int,
    groups: int,
    attention: bool,
    patch: int,
    dtype: DTypeLike | None,
    remat: bool,
) -> Array:
    """The layers of an encoder, whose last one has this name: [B, H, W, C] -> [B, H / f, W / f, outputs]."""
    latent_shape(x.shape[1:], levels=len(features), channels=outputs, patch=patch)
    conv, block = partial(Conv, kernel_size=(3, 3), dtype=dtype), _block(groups, dtype, remat)
    for _ in range(patch.bit_length() - 1):
        x = squeeze(x)
    h = conv(features[0], name="first")(x)
    for level, width in enumerate(features):
        for i in range(blocks):
            h = block(width, name=f"down_{level}_{i}")(h)
        if level < len(features) - 1:
            h = conv(width, strides=(2, 2), padding=((0, 1), (0, 1)), name=f"halve_{level}")(h)
    h = _middle(h, block, groups, attention, dtype, remat)
    h = nn.silu(GroupNorm(groups, dtype=dtype, name="norm")(h))
    return Conv(outputs, (1, 1), dtype=dtype, name=name)(conv(outputs, name="last")(h))


def _block(groups: int, dtype: DTypeLike | None, remat: bool) -> Callable[..., nn.Module]:
    """Returns (features, name=...) -> a residual block."""
    kind = nn.remat(ResidualBlock) if remat else ResidualBlock
    return partial(kind, groups=groups, conv=Conv, dtype=dtype)


def _middle(
    h: Array,
    block: Callable[..., nn.Module],
    groups: int,
    attention: bool,
    dtype: DTypeLike | None,
    remat: bool,
) -> Array:
    h = block(h.shape[-1], name="middle_0")(h)
    if attention:
        kind = nn.remat(SelfAttention) if remat else SelfAttention
        h = kind(None, groups, dtype=dtype, name="middle_attention")(h)
    return block(h.shape[-1], name="middle_1")(h)
