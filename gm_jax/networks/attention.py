"""Attention: the block of a U-Net, multi-head attention to any context, and the layers of transformers.

Notation: x [B, N, F] queries' features, c [B, M, G] the context, D = F / heads.

    Attn(x, c) = concat_h(softmax(Q_h K_h^T / sqrt(D)) V_h) W_O,    Q = x W_Q + b, K = c W_K, V = c W_V + b   (1)
    h <- h + Attn(LN(h), LN(h)),    h <- h + W_2 gelu(W_1 LN(h))                                             (2)
    h <- h + Attn(LN(h), c)                                                                                  (3)

Self-attention has c = x; cross-attention reads another sequence. A mask [N, M] names the positions that each query
reads; a causal one, m <= n, is `np.tri(N, dtype=bool)`. Keys have no bias: it would shift all scores of a query
equally, and the softmax removes such a shift.

Cached evaluation of causal self-attention (`begin`, `step`): keys and values of the positions so far are kept, because
later positions do not change them. A step computes those of one position, and reads all.

Sources: (1) Vaswani et al., "Attention Is All You Need", NeurIPS 2017, arXiv:1706.03762, section 3.2. (2), with the
    normalisation before each layer: Radford et al., "Language Models are Unsupervised Multitask Learners" (GPT-2),
    2019, section 2.3. (3): Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022,
    arXiv:2112.10752, section 3.3.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gm_jax.networks.dropout import KeyedDropout
from gm_jax.networks.normalization import GroupNorm
from gm_jax.ops.attention import attention, attention_of_one_query
from gm_jax.types import Array


class SelfAttention(nn.Module):
    """A residual block of self-attention, [B, H, W, C] -> the same shape; it starts as the identity.

    Attributes:
        head_dim: channels D of each head; it divides C. None for a single head.
        groups: number of groups of the normalisation.
        rescale: divides the sum by sqrt(2).
        dtype: precision of the computation.
    """

    head_dim: int | None
    groups: int
    rescale: bool = False
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, H, W, C] to the same shape.

        Raises:
            ValueError: `head_dim` does not divide C.
        """
        batch, height, width, channels = x.shape
        head_dim = self.head_dim or channels
        if channels % head_dim:
            raise ValueError(f"{channels} channels cannot be split into heads of {head_dim}: choose a divisor.")
        h = GroupNorm(self.groups, dtype=self.dtype)(x).reshape(batch, height * width, channels)

        def project(name: str, *, use_bias: bool = True) -> Array:
            projected = nn.Dense(channels, use_bias=use_bias, dtype=self.dtype, name=name)(h)
            return projected.reshape(batch, height * width, channels // head_dim, head_dim)

        y = attention(project("query"), project("key", use_bias=False), project("value"))
        y = nn.Dense(channels, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="out")(y.reshape(h.shape))
        total = x + y.reshape(x.shape)
        return total * float(np.sqrt(0.5)) if self.rescale else total


class KeysAndValues(NamedTuple):
    """The cache of a layer: K and V of (1), [n, heads, length, D] each; zeros at positions to come."""

    keys: Array
    values: Array


class MultiHeadAttention(nn.Module):
    """Multi-head attention (1): x [B, N, F] and a context [B, M, G] -> [B, N, F].

    Attributes:
        features: F.
        heads: number of heads; it divides F.
        out_init: initialiser of W_O.
        dtype: precision of the computation; the softmax is float32 at least.
    """

    features: int
    heads: int
    out_init: nn.initializers.Initializer = nn.linear.default_kernel_init
    dtype: DTypeLike | None = None

    def setup(self) -> None:
        if self.features % self.heads:
            raise ValueError(f"{self.features} features cannot be split into {self.heads} heads: choose a divisor.")
        dense = partial(nn.Dense, self.features, dtype=self.dtype)
        self.query, self.key, self.value = dense(), dense(use_bias=False), dense()
        self.out = dense(kernel_init=self.out_init)

    def __call__(self, x: Array, context: Array, mask: Array | np.ndarray | None = None) -> Array:
        """Maps x [B, N, F], a context [B, M, G] and a mask, [N, M] or [B, N, M], to [B, N, F].

        Raises:
            ValueError: `heads` does not divide F.
        """
        q, k, v = (self._split(part) for part in (self.query(x), self.key(context), self.value(context)))
        return self.out(attention(q, k, v, mask).reshape(x.shape))

    def weights(self, x: Array, context: Array, mask: Array) -> Array:
        """Computes the softmax of (1): [B, heads, N, M], how much each query reads of each position of the context."""
        q, k = self._split(self.query(x)), self._split(self.key(context))
        scores = jnp.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(q.shape[-1])
        return jax.nn.softmax(jnp.where(mask[:, None], scores, -jnp.inf), axis=-1)

    def begin(self, n: int, length: int, dtype: DTypeLike) -> KeysAndValues:
        """Returns the cache before the first of `length` positions."""
        empty = jnp.zeros((n, self.heads, length, self.features // self.heads), dtype)
        return KeysAndValues(empty, empty)

    def step(self, cache: KeysAndValues, i: Array, x: Array) -> tuple[KeysAndValues, Array]:
        """Maps position i, x [n, F], to (cache, [n, F]): it reads itself and the positions before."""
        q, k, v = (self._split(part) for part in (self.query(x), self.key(x), self.value(x)))

        def write(old: Array, new: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(old, new[:, :, None].astype(old.dtype), i, axis=2)

        cache = KeysAndValues(write(cache.keys, k), write(cache.values, v))
        y = attention_of_one_query(q, *cache, jnp.arange(cache.keys.shape[2]) <= i)
        return cache, self.out(y.reshape(x.shape))

    def _split(self, x: Array) -> Array:
        """Splits [..., F] into the heads, [..., heads, D]."""
        return x.reshape(*x.shape[:-1], self.heads, -1)


class CrossAttention(nn.Module):
    """A residual layer that reads a context (3): h [B, N, F] -> the same shape; it starts as the identity.

    Applied with the collection "attention_maps" mutable, it keeps its weights, [B, N, M], the mean of the heads.

    Attributes:
        features: F.
        heads: number of heads; it divides F.
        dtype: precision of the computation.
    """

    features: int
    heads: int
    dtype: DTypeLike | None = None

    def setup(self) -> None:
        self.norm = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=self.dtype)
        self.attention = MultiHeadAttention(self.features, self.heads, nn.initializers.zeros, self.dtype)

    def __call__(self, h: Array, context: Array | None, counts: Array) -> Array:
        """Maps h [B, N, F], a context [B, M, G] and which of its positions count, [B, M] bool, to [B, N, F].

        Raises:
            ValueError: there is no context; a layer that then read h itself would hide a mistake.
        """
        if context is None:
            raise ValueError("cross-attention needs a context: pass one, or use a network without text.")
        normed = self.norm(h)
        mask = jnp.broadcast_to(counts[:, None], (*h.shape[:2], context.shape[1]))
        if self.is_mutable_collection("attention_maps") and not self.is_initializing():
            self.sow("attention_maps", "weights", jnp.mean(self.attention.weights(normed, context, mask), axis=1))
        return h + self.attention(normed, context, mask)


class TransformerBlock(nn.Module):
    """A block of a transformer, with the normalisation before each layer (2): h [B, N, F] -> the same shape.

    Attributes:
        features: F; the perceptron has 4 F hidden units.
        heads: number of heads; it divides F.
        layers: number of blocks in the network. The kernels of both updates start smaller by 1 / sqrt(2 layers), so
            that the sum of all updates starts with the scale of one (GPT-2, section 2.3).
        dropout: dropout rate of both updates in training (Vaswani et al., section 5.4).
        dtype: precision of the computation.
        starts_as_identity: starts the kernels of both updates at zero instead.
    """

    features: int
    heads: int
    layers: int = 1
    dropout: float = 0.0
    dtype: DTypeLike | None = None
    starts_as_identity: bool = False

    def setup(self) -> None:
        update_init = nn.initializers.variance_scaling(0.5 / self.layers, "fan_in", "truncated_normal")
        update_init = nn.initializers.zeros if self.starts_as_identity else update_init
        norm = partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False, dtype=self.dtype)
        self.attention_norm, self.mlp_norm = norm(), norm()
        self.attention = MultiHeadAttention(self.features, self.heads, update_init, self.dtype)
        self.wide = nn.Dense(4 * self.features, dtype=self.dtype)
        self.narrow = nn.Dense(self.features, kernel_init=update_init, dtype=self.dtype)
        self.drop = KeyedDropout(self.dropout)

    def __call__(self, h: Array, mask: Array | np.ndarray | None = None) -> Array:
        """Maps h [B, N, F] and a mask, [N, N] or [B, N, N], to [B, N, F]."""
        normed = self.attention_norm(h)
        return self._mlp(h + self.drop(self.attention(normed, normed, mask)))

    def begin(self, n: int, length: int, dtype: DTypeLike) -> KeysAndValues:
        """Returns the cache before the first of `length` positions."""
        return self.attention.begin(n, length, dtype)

    def step(self, cache: KeysAndValues, i: Array, h: Array) -> tuple[KeysAndValues, Array]:
        """Maps position i, h [n, F], to (cache, [n, F]), as with a causal mask."""
        cache, update = self.attention.step(cache, i, self.attention_norm(h))
        return cache, self._mlp(h + update)

    def _mlp(self, h: Array) -> Array:
        return h + self.drop(self.narrow(nn.gelu(self.wide(self.mlp_norm(h)))))
