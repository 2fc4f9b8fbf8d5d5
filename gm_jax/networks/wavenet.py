"""WaveNet: the conditionals of all steps of a sequence by dilated causal convolutions.

Maps integer levels x [B, T] to outputs [B, T, P], the P parameters of p(x_t | x_<t). Each layer, of dilation d, is

    a[t] = W_0 h[t] + W_1 h[t - d] + ... + W_{k-1} h[t - (k-1) d] + b(y),    a = (value, gate)        (1)
    z    = tanh(value) sigmoid(gate),    h <- h + R z,    skip <- skip + S z                          (2)

with y a class label. A causal convolution sees its own step, so the first h is the embedded sequence delayed by one
step, with zeros first: h_0[t] = e(x[t-1]). The outputs at t therefore depend on x[t-1] ... x[t-r] only, where

    r = 1 + (k - 1) sum of the dilations                                                             (3)

is the receptive field. The embedding e is the first layer's product with one-hot levels.

Cached evaluation (`begin`, `step`): each layer keeps a queue of its last (k-1) d inputs.

Source: van den Oord et al., "WaveNet: A Generative Model for Raw Audio", 2016, arXiv:1609.03499; the queues: Le Paine
et al., "Fast Wavenet Generation Algorithm", 2016, arXiv:1611.09482.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike

from gm_jax.networks.label_bias import LabelBias, add_bias
from gm_jax.networks.masked_conv import at_column, set_column
from gm_jax.ops.cpu import causal_conv
from gm_jax.types import Array


def receptive_field(kernel_size: int, dilations: Sequence[int]) -> int:
    """Returns r, eq. (3): the number of past steps on which p(x_t | x_<t) depends."""
    return 1 + (kernel_size - 1) * sum(dilations)


class GatedCausalConv(nn.Module):
    """A dilated causal convolution and its gate, eq. (1): h [B, T, I] -> z [B, T, F].

    Attributes:
        inputs: I.
        features: F.
        kernel_size: k, at least 2.
        dilation: d.
        dtype: precision of the computation.
    """

    inputs: int
    features: int
    kernel_size: int
    dilation: int
    dtype: DTypeLike | None = None

    def setup(self) -> None:
        init = nn.initializers.lecun_normal()
        self.kernel = self.param("kernel", init, (self.kernel_size, self.inputs, 2 * self.features))
        self.bias = self.param("bias", nn.initializers.zeros, (2 * self.features,))

    def __call__(self, h: Array, label_bias: Array | None) -> Array:
        """Maps h [B, T, I] and b(y) [B, 2F] to [B, T, F]."""
        h, kernel, bias = promote_dtype(h, self.kernel, self.bias, dtype=self.dtype)
        return _gate(causal_conv(h, kernel, dilation=self.dilation) + bias.reshape(1, 1, -1), label_bias)

    def begin(self, n: int, dtype: DTypeLike) -> Array:
        """Returns the queue before the first step, zeros [n, (k-1) d, I]."""
        return jnp.zeros((n, (self.kernel_size - 1) * self.dilation, self.inputs), dtype)

    def step(self, queue: Array, t: Array, h: Array, label_bias: Array | None) -> tuple[Array, Array]:
        """Computes one step, h [n, I] -> (queue, z [n, F]); the input of step t lies at t modulo the queue's length."""
        length = queue.shape[1]
        past = [at_column(queue, (t - i * self.dilation) % length) for i in range(1, self.kernel_size)]
        window, kernel, bias = promote_dtype(
            jnp.concatenate([h, *past], axis=-1), self.kernel, self.bias, dtype=self.dtype
        )
        a = window @ kernel.reshape(-1, kernel.shape[2]) + bias.reshape(1, -1)
        return set_column(queue, t % length, h.astype(queue.dtype)), _gate(a, label_bias)


class WaveNetCache(NamedTuple):
    """WaveNet's cache: each layer's queue [n, (k-1) d, features] and its b(y) [n, 2 features]."""

    queues: tuple[Array, ...]
    biases: tuple[Array | None, ...]


class WaveNet(nn.Module):
    """WaveNet: levels [B, T] -> outputs [B, T, P].

    Attributes:
        levels: L.
        outputs_per_dim: P.
        features: channels of h and of z.
        skip: channels of the skip connections.
        dilations: d of each layer.
        kernel_size: k.
        num_classes: number of classes of the labels; None for a network without labels.
        dtype: precision of the computation.
    """

    levels: int
    outputs_per_dim: int
    features: int = 32
    skip: int = 256
    dilations: tuple[int, ...] = tuple(2**layer for layer in range(10))
    kernel_size: int = 2
    num_classes: int | None = None
    dtype: DTypeLike | None = None

    def setup(self) -> None:
        if self.kernel_size < 2:
            raise ValueError(f"a causal convolution with kernel_size={self.kernel_size} sees no past: use 2 or more.")
        self.embedding = nn.Embed(self.levels, self.features, dtype=self.dtype)
        self.convs = [
            GatedCausalConv(self.features, self.features, self.kernel_size, dilation, self.dtype)
            for dilation in self.dilations
        ]
        self.label_biases = [LabelBias(self.num_classes, 2 * self.features, self.dtype) for _ in self.dilations]
        # R and S are one product. The last layer has no R, because nothing reads its h.
        widths = [self.features + self.skip] * (len(self.dilations) - 1) + [self.skip]
        self.projections = [nn.Dense(width, dtype=self.dtype) for width in widths]
        self.hidden = nn.Dense(self.skip, dtype=self.dtype)
        self.readout = nn.Dense(self.outputs_per_dim, dtype=self.dtype)

    def __call__(self, x: Array, label: Array | None = None) -> Array:
        """Maps levels x [B, T] and labels [B] to outputs [B, T, P]."""
        return self.from_embedded(self.embedding(x), label)

    def from_embedded(self, e: Array, label: Array | None = None) -> Array:
        """Maps embedded levels e(x) [B, T, features] to outputs [B, T, P]."""
        h = jnp.pad(e[:, :-1], [(0, 0), (1, 0), (0, 0)])
        skips = []
        for conv, label_bias, projection in zip(self.convs, self.label_biases, self.projections, strict=True):
            h = self._add(h, projection(conv(h, label_bias(label))), skips)
        return self._outputs(skips)

    def begin(self, n: int, label: Array | None = None) -> WaveNetCache:
        """Returns the cache before the first step of n sequences."""
        dtype = self.dtype or jnp.result_type(float)
        return WaveNetCache(
            queues=tuple(conv.begin(n, dtype) for conv in self.convs),
            biases=tuple(label_bias(label) for label_bias in self.label_biases),
        )

    def step(self, cache: WaveNetCache, i: Array, previous: Array) -> tuple[WaveNetCache, Array]:
        """Computes the outputs [n, P] of step i, given the level [n] before it."""
        h = jnp.where(i > 0, self.embedding(previous), 0.0)
        queues, skips = [], []
        for conv, projection, queue, bias in zip(self.convs, self.projections, cache.queues, cache.biases, strict=True):
            queue, z = conv.step(queue, i, h, bias)
            h = self._add(h, projection(z), skips)
            queues.append(queue)
        return cache._replace(queues=tuple(queues)), self._outputs(skips)

    def _add(self, h: Array, projected: Array, skips: list[Array]) -> Array:
        """Splits R z and S z; returns h + R z and appends S z to the list."""
        residual, skip = projected[..., : -self.skip], projected[..., -self.skip :]
        skips.append(skip)
        return h + residual if residual.shape[-1] else h

    def _outputs(self, skips: list[Array]) -> Array:
        return self.readout(nn.relu(self.hidden(nn.relu(sum(skips)))))


def _gate(a: Array, label_bias: Array | None) -> Array:
    value, gate = jnp.split(add_bias(a, label_bias), 2, axis=-1)
    return jnp.tanh(value) * jax.nn.sigmoid(gate)
