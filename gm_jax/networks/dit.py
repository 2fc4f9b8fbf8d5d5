"""The diffusion transformer (DiT) with adaLN-Zero: patches of x_t as tokens, conditioned on the time and on y.

    h = W patches(x_t) + b + p,    c = e(t) + b(y)                                                          (1)
    h <- h + g_1 Attn(m_1(h)),    h <- h + CrossAttn(h, text),    h <- h + g_2 MLP(m_2(h))                  (2)
    m(h) = (1 + scale) LN(h) + shift;    the shifts, scales and gates g of a block are W silu(c) + b         (3)
    output = unpatch(W m(h) + b)                                                                            (4)

with p the sines and cosines of each patch's row and column. W and b of (3) and (4) start at 0, and so does the output
of the cross-attention: every block starts as the identity, and the network's output as 0.

y is a class label, or a caption: a text encoder then gives the context of the cross-attention, and its summary is added
to c.

Sources: Peebles & Xie, "Scalable Diffusion Models with Transformers", ICCV 2023, arXiv:2212.09748. The cross-attention
    after the self-attention: Chen et al., "PixArt-alpha", ICLR 2024, arXiv:2310.00426, section 2.3.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gm_jax.errors import UserError
from gm_jax.networks.attention import CrossAttention, MultiHeadAttention
from gm_jax.networks.text_encoder import TextEncoder
from gm_jax.networks.time_embedding import TimeEmbedding, sinusoids
from gm_jax.types import Array


class DiT(nn.Module):
    """Predicts eps, x_0 or v, which have the shape of x_t, from x_t [B, H, W, C] and t [B].

    Attributes:
        features: width F.
        layers: number of blocks (2).
        heads: heads of the attention; they divide F.
        patch: side of a patch; it divides H and W.
        num_classes: number of classes, including "no class" if there is one; None for a network without labels.
        text: reads captions, to a context of F features; None for a network without text.
        dtype: precision of the computation; the output is float32 at least.
        outputs: how many outputs each number of x_t has, one block of the last axis after the other.
        remat: stores only the inputs of blocks for the backward pass, which computes the rest again: less memory on
            accelerators, for about a third more products and twice the traffic to it (`docs/performance.md`).
    """

    features: int
    layers: int
    heads: int
    patch: int = 2
    num_classes: int | None = None
    text: TextEncoder | None = None
    dtype: DTypeLike | None = None
    outputs: int = 1
    remat: bool = False

    @nn.compact
    def __call__(self, x_t: Array, t: Array, label: Array | None = None, *, train: bool = False) -> Array:
        """Maps x_t [B, H, W, C], t [B] and labels [B], or captions [B, L], to [B, H, W, C times outputs].

        Raises:
            UserError: x_t is not a batch of images, or patches do not divide its sides.
            ValueError: the label or the caption is missing, or the network has none.
        """
        height, width = self._patches(x_t.shape[1:])
        caption, label = (None, label) if self.text is None else (label, None)
        c = TimeEmbedding(256, self.features, self.num_classes, self.dtype, name="time")(t, label)
        context, counts = None, jnp.ones((len(t), 1), bool)
        if self.text is not None:
            context, counts = self.text(caption)
            c = c + self.text.summary(context, counts)
        c = nn.silu(c)
        h = nn.Dense(self.features, dtype=self.dtype, name="patches")(_patches(x_t, self.patch))
        h = h + _positions(height, width, self.features).astype(h.dtype)[None]
        settings = {"features": self.features, "heads": self.heads, "dtype": self.dtype}
        block = nn.remat(DiTBlock) if self.remat else DiTBlock
        for i in range(self.layers):
            h = block(**settings, reads_text=self.text is not None, name=f"block_{i}")(h, c, context, counts)
        zeros = nn.initializers.zeros
        shift, scale = jnp.split(
            nn.Dense(2 * self.features, kernel_init=zeros, dtype=self.dtype, name="last_mod")(c), 2, -1
        )
        size = self.patch**2 * self.outputs * x_t.shape[-1]
        y = nn.Dense(size, kernel_init=zeros, dtype=self.dtype, name="last")(_modulated(h, shift, scale))
        y = _unpatched(y, height, width, self.patch)
        return y.astype(jnp.promote_types(y.dtype, jnp.float32))

    def _patches(self, event_shape: tuple[int, ...]) -> tuple[int, int]:
        """Returns the rows and columns of patches."""
        if len(event_shape) != 3:
            raise UserError(
                f"a DiT needs images [height, width, channels], not data of shape {event_shape}: use the fully "
                "connected network."
            )
        height, width, _ = event_shape
        if height % self.patch or width % self.patch:
            raise UserError(f"patches of side {self.patch} do not divide {height} x {width}: choose a divisor.")
        return height // self.patch, width // self.patch


class DiTBlock(nn.Module):
    """A block (2): h [B, N, F] -> the same shape; it starts as the identity.

    Attributes:
        features: F; the perceptron has 4 F hidden units.
        heads: number of heads; it divides F.
        reads_text: whether it has a cross-attention.
        dtype: precision of the computation.
    """

    features: int
    heads: int
    reads_text: bool = False
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, h: Array, c: Array, context: Array | None, counts: Array) -> Array:
        """Maps h [B, N, F], silu(c) [B, F], a context [B, M, G] and which of it counts [B, M] to [B, N, F]."""
        modulation = nn.Dense(6 * self.features, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="mod")(c)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = jnp.split(modulation, 6, axis=-1)
        normed = _modulated(h, shift_1, scale_1)
        attention = MultiHeadAttention(self.features, self.heads, dtype=self.dtype, name="attention")
        h = h + gate_1[:, None] * attention(normed, normed)
        if self.reads_text:
            h = CrossAttention(self.features, self.heads, self.dtype, name="cross_attention")(h, context, counts)
        wide = nn.Dense(4 * self.features, dtype=self.dtype, name="wide")(_modulated(h, shift_2, scale_2))
        return h + gate_2[:, None] * nn.Dense(self.features, dtype=self.dtype, name="narrow")(nn.gelu(wide))


def _modulated(h: Array, shift: Array, scale: Array) -> Array:
    """Computes m(h) of (3) for h [B, N, F], shifts and scales [B, F]."""
    norm = nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, use_bias=False, use_scale=False, dtype=h.dtype)
    return (1.0 + scale[:, None]) * norm(h) + shift[:, None]


def _patches(x: Array, side: int) -> Array:
    """Cuts x [B, H, W, C] into patches [B, N, side^2 C], in raster order."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // side, side, width // side, side, channels)
    return jnp.moveaxis(x, 3, 2).reshape(batch, -1, side * side * channels)


def _unpatched(y: Array, height: int, width: int, side: int) -> Array:
    """Puts patches [B, N, side^2 C] together, [B, H, W, C]; the inverse of `_patches`."""
    y = y.reshape(y.shape[0], height, width, side, side, -1)
    return jnp.moveaxis(y, 3, 2).reshape(y.shape[0], height * side, width * side, -1)


def _positions(height: int, width: int, features: int) -> Array:
    """Computes p of (1): [N, F], half of it of the column and half of the row."""
    half = 2 * (features // 4)
    rows, columns = np.divmod(np.arange(height * width), width)
    waves = [sinusoids(jnp.asarray(places), half) for places in (columns, rows)]
    return jnp.pad(jnp.concatenate(waves, axis=-1), ((0, 0), (0, features - 2 * half)))
