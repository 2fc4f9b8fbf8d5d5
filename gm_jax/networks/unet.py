"""The U-Net of DDPM: predicts from an image x_t, the time t and, in a network with labels, a class.

    down:    at each level residual blocks, then both sides are halved                                    (1)
    middle:  a residual block, self-attention, a residual block                                           (2)
    up:      at each level one residual block more than in (1), each on the current features concatenated with
             the skip connection from (1), then both sides are doubled                                    (3)
    block:   x + conv(dropout(silu(norm(conv(silu(norm(x))) + dense(silu(e))))))                          (4)

where e is the sum of the embeddings of the time and the label. Self-attention follows each block of chosen levels. The
last convolution of each block, the last product of each attention and the last layer of the network start at zero.

A network with captions, as that of latent diffusion, reads the context of a text encoder by a cross-attention after
each self-attention; its summary of the caption is added to e.

The embedding can also scale the features, as in ADM. Scale and shift are those of a channel, the same at every place:
a condition can amplify a feature, or switch it off, wherever the feature is.

    block:   x + conv(dropout(silu((1 + s) norm(conv(silu(norm(x)))) + b))),    (s, b) = dense(silu(e))   (6)

DDPM++ halves and doubles by residual blocks as those of BigGAN,

    block:   conv1x1(r(x)) + conv(dropout(silu(norm(conv(r(silu(norm(x)))) + dense(silu(e))))))           (5)

where r is the mean of 2 x 2 places or repeats each place four times; the up path has attention after the last block of
a level only. It divides every sum of a residual by sqrt(2). ADM has these blocks with r(x) in place of conv1x1(r(x)),
and attention after every block of a level.

Source: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv:2006.11239, appendix B. This
    network differs in the numbers of heads (one there) and groups, and pads all four sides with zeros before halving.
    Ronneberger, Fischer & Brox, "U-Net", MICCAI 2015, arXiv:1505.04597. Song et al., "Score-Based Generative Modeling
    through Stochastic Differential Equations", ICLR 2021, arXiv:2011.13456, appendix H: DDPM++. Rombach et al.,
    "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022, arXiv:2112.10752, section 3.3: captions.
    Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis" (ADM), NeurIPS 2021, arXiv:2105.05233, section 3.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gm_jax.errors import UserError
from gm_jax.networks.attention import CrossAttention, SelfAttention
from gm_jax.networks.dropout import Dropout
from gm_jax.networks.normalization import GroupNorm
from gm_jax.networks.text_encoder import TextEncoder
from gm_jax.networks.time_embedding import TimeEmbedding
from gm_jax.types import Array

Resample = Callable[[Array], Array]
_Resampling = Literal["convolution", "block", "adm"]


class UNet(nn.Module):
    """Predicts eps, x_0 or v, which have the shape of x_t, from x_t [B, H, W, C] and t [B].

    Attributes:
        features: channels of each level, from the full resolution inwards; each level but the last halves the sides.
        blocks: residual blocks of each level in the down path; the up path has one more.
        attention: levels, counted from 0, whose blocks are followed by self-attention; the middle always has it.
        groups: number of groups of the normalisations; it divides the channels of each level.
        head_dim: channels of each head of attention; None for a single head.
        num_classes: number of classes, including "no class" if there is one; None for a network without labels.
        dropout: dropout rate in training.
        stem: channels of the first convolution, a quarter of the embedding's; None for those of the first level.
        resample: what halves and doubles the sides: "convolution"; "block", as in DDPM++; or "adm", blocks whose
            shortcuts have no weights, with attention after every block of a level.
        rescale: divides every sum of a residual by sqrt(2), except those of cross-attentions.
        dtype: precision of the computation; the output is float32 at least.
        outputs: how many outputs each number of x_t has, one block of channels after the other.
        augmented: how many numbers describe the augmentation of an example; None for a network without them.
        remat: stores only the inputs of blocks and attentions for the backward pass, which computes the rest again:
            less memory on accelerators if maps are large, for about a sixth more products.
        text: reads captions, to a context of 4 stem features; None for a network without text.
        scale_shift: blocks (6) in place of (4), and the same change in (5).
        conv: the convolutions; `convolution.Conv` if the network is trained in turns or by several steps in a call,
            and not by forward mode.
    """

    features: tuple[int, ...]
    blocks: int = 1
    attention: tuple[int, ...] = ()
    groups: int = 8
    head_dim: int | None = None
    num_classes: int | None = None
    dropout: float = 0.0
    stem: int | None = None
    resample: _Resampling = "convolution"
    rescale: bool = False
    dtype: DTypeLike | None = None
    outputs: int = 1
    remat: bool = False
    augmented: int | None = None
    text: TextEncoder | None = None
    scale_shift: bool = False
    conv: Callable[..., nn.Module] = nn.Conv

    @nn.compact
    def __call__(
        self, x_t: Array, t: Array, label: Array | None = None, *, changes: Array | None = None, train: bool = False
    ) -> Array:
        """Maps x_t [B, H, W, C], t [B], labels [B] or captions [B, L], changes [B, A] to [B, H, W, C times outputs].

        Raises:
            UserError: x_t is not a batch of images, or the network's settings do not divide its sides or channels.
            ValueError: the label or the caption is missing, or the network has none; or `resample` is another word.
        """
        self._check(x_t.shape[1:])
        conv = partial(self.conv, kernel_size=(3, 3), dtype=self.dtype)
        settings = {"groups": self.groups, "rescale": self.rescale, "dtype": self.dtype}
        stem = self.stem or self.features[0]
        embedding, read = self._conditions(stem, t, label, changes)

        def block(h: Array, channels: int, name: str, resample: Resample | None = None) -> Array:
            options = {"dropout": self.dropout, "resample": resample, "scale_shift": self.scale_shift}
            options |= {"conv": self.conv, "plain_shortcut": self.resample == "adm", **settings}
            return self._run(ResidualBlock(channels, name=name, **options), h, embedding, train=train)

        def attend(h: Array, name: str) -> Array:
            h = self._run(SelfAttention(self.head_dim, name=name, **settings), h)
            return h if read is None else self._reads(h, *read, name=name.replace("attention", "cross_attention"))

        def half(h: Array, level: int) -> Array:
            if self.resample != "convolution":
                return block(h, h.shape[-1], f"halve_{level}", halve)
            return conv(h.shape[-1], strides=(2, 2), padding=((1, 1), (1, 1)), name=f"halve_{level}")(h)

        def double(h: Array, level: int) -> Array:
            if self.resample != "convolution":
                return block(h, h.shape[-1], f"double_{level}", upsample_nearest)
            return conv(h.shape[-1], name=f"double_{level}")(upsample_nearest(h))

        h = conv(stem, name="first")(x_t)
        skips = [h]
        for level, channels in enumerate(self.features):
            for i in range(self.blocks):
                h = block(h, channels, f"down_{level}_{i}")
                h = attend(h, f"down_attention_{level}_{i}") if level in self.attention else h
                skips.append(h)
            if level < len(self.features) - 1:
                h = half(h, level)
                skips.append(h)

        h = block(h, self.features[-1], "middle_0")
        h = attend(h, "middle_attention")
        h = block(h, self.features[-1], "middle_1")

        for level, channels in reversed(list(enumerate(self.features))):
            for i in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = block(h, channels, f"up_{level}_{i}")
                attends = level in self.attention and (i == self.blocks or self.resample != "block")
                h = attend(h, f"up_attention_{level}_{i}") if attends else h
            h = double(h, level) if level > 0 else h

        h = nn.silu(GroupNorm(self.groups, dtype=self.dtype, name="norm")(h))
        h = conv(self.outputs * x_t.shape[-1], kernel_init=nn.initializers.zeros, name="last")(h)
        return h.astype(jnp.promote_types(h.dtype, jnp.float32))

    def _conditions(
        self, stem: int, t: Array, label: Array | None, changes: Array | None
    ) -> tuple[Array, tuple[Array, Array] | None]:
        """Returns silu(e) [B, 4 stem], and the context and mask of the captions, if the network reads them."""
        caption, label = (None, label) if self.text is None else (label, None)
        time = TimeEmbedding(stem, 4 * stem, self.num_classes, self.dtype, self.augmented, name="time")
        embedding = time(t, label, changes)
        if self.text is None:
            return nn.silu(embedding), None
        context, counts = self.text(caption)
        return nn.silu(embedding + self.text.summary(context, counts)), (context, counts)

    def _reads(self, h: Array, context: Array, counts: Array, *, name: str) -> Array:
        """Lets every place of h [B, H, W, C] read the context."""
        batch, *_, channels = h.shape
        heads = channels // (self.head_dim or channels)
        reading = CrossAttention(channels, heads, self.dtype, name=name)
        return self._run(reading, h.reshape(batch, -1, channels), context, counts).reshape(h.shape)

    def _run(self, layer: nn.Module, *inputs: Array, **options: bool) -> Array:
        def call(layer: nn.Module, *inputs: Array) -> Array:
            return layer(*inputs, **options)

        return (nn.remat(call) if self.remat else call)(layer, *inputs)

    def _check(self, event_shape: tuple[int, ...]) -> None:
        if self.resample not in get_args(_Resampling):
            raise ValueError(f"resample is {self.resample!r}: choose one of {', '.join(get_args(_Resampling))}.")
        if len(event_shape) != 3:
            raise UserError(
                f"a U-Net needs images [height, width, channels], not data of shape {event_shape}: "
                "use the fully connected network."
            )
        height, width, _ = event_shape
        multiple = 2 ** (len(self.features) - 1)
        if height % multiple or width % multiple:
            raise UserError(
                f"images of {height} x {width} do not fit a U-Net of {len(self.features)} levels: "
                f"both sides must be divisible by {multiple}, so use fewer levels."
            )
        widths = (*self.features, *([] if self.stem is None else [self.stem]))
        if any(channels % self.groups for channels in widths):
            raise UserError(
                f"channels {widths} of a U-Net cannot be split into {self.groups} groups for its "
                f"normalisations: use multiples of {self.groups}."
            )
        attended = {self.features[-1], *(self.features[level] for level in self.attention)}
        if self.head_dim is not None and any(channels % self.head_dim for channels in attended):
            raise UserError(
                f"heads of {self.head_dim} channels do not divide the levels with attention, {sorted(attended)}: "
                "choose a common divisor."
            )


class ResidualBlock(nn.Module):
    """A residual block (4), (5) or (6), [B, H, W, I] -> [B, H', W', features].

    If I is not the number of features, x passes through a 1x1 convolution in (4) too.

    Attributes:
        features: channels of the output.
        groups: number of groups of the normalisations.
        dropout: dropout rate in training.
        resample: the function r of (5), `halve` or `upsample_nearest`; None for (4).
        rescale: divides the sum by sqrt(2).
        dtype: precision of the computation.
        scale_shift: whether e scales the features too, (6).
        plain_shortcut: adds r(x) itself in (5), if I is the number of features.
        conv: the convolutions, see `UNet`.
    """

    features: int
    groups: int
    dropout: float = 0.0
    resample: Resample | None = None
    rescale: bool = False
    dtype: DTypeLike | None = None
    scale_shift: bool = False
    plain_shortcut: bool = False
    conv: Callable[..., nn.Module] = nn.Conv

    @nn.compact
    def __call__(self, x: Array, embedding: Array | None = None, *, train: bool = False) -> Array:
        """Maps x [B, H, W, I] and silu(e) [B, E], None for a network without a time, to [B, H', W', features]."""
        norm = partial(GroupNorm, self.groups, dtype=self.dtype)
        conv = partial(self.conv, self.features, dtype=self.dtype)
        h = nn.silu(norm(name="norm_0")(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = conv((3, 3), name="conv_0")(h)
        if embedding is not None and self.scale_shift:
            moves = nn.Dense(2 * self.features, dtype=self.dtype, name="time")(embedding)[:, None, None]
            scale, shift = jnp.split(moves, 2, axis=-1)
            h = (1.0 + scale) * norm(name="norm_1")(h) + shift
        else:
            if embedding is not None:
                h = h + nn.Dense(self.features, dtype=self.dtype, name="time")(embedding)[:, None, None]
            h = norm(name="norm_1")(h)
        h = nn.silu(h)
        h = Dropout(self.dropout, deterministic=not train)(h)
        h = conv((3, 3), kernel_init=nn.initializers.zeros, name="conv_1")(h)
        is_same = x.shape[-1] == self.features and (self.resample is None or self.plain_shortcut)
        h = h + (x if is_same else conv((1, 1), name="shortcut")(x))
        return h * float(np.sqrt(0.5)) if self.rescale else h


def halve(h: Array) -> Array:
    """Halves both sides by the mean of each 2 x 2 places: [B, H, W, C] -> [B, H/2, W/2, C]."""
    return nn.avg_pool(h, (2, 2), strides=(2, 2))


def upsample_nearest(h: Array) -> Array:
    """Doubles both sides by repeating each place four times: [B, H, W, C] -> [B, 2H, 2W, C]."""
    batch, height, width, channels = h.shape
    doubled = jnp.broadcast_to(h[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return doubled.reshape(batch, 2 * height, 2 * width, channels)
