"""A causal transformer: the conditionals of all dimensions of an image or a sequence by masked self-attention.

Maps integer levels x [B, ...] to outputs [B, ..., P], the P parameters of p(x_i | x_<i), in raster order with channels
fastest: i = 0 ... D-1. Each x_i is a token. Position i is given the token before it:

    h_i = e(x_{i-1}) + sum_a t_a(i) + b(y),    e(x_{-1}) a learned start token                              (1)
    h  <- block(h, mask),    mask[i, j] = (j <= i),    for each layer                                        (2)
    outputs_i = W LN(h_i) + b                                                                               (3)

with e an embedding of levels, t_a(i) a learned vector for the coordinate of pixel i on axis a (row, column and colour
of an image; place of a sequence), y a class label, and the blocks and readout of `transformer_trunk`. Every output sees
every earlier level: the receptive field is everything. A pass costs O(D^2 F + D F^2); position i of the cached
evaluation (`begin`, `step`) costs O(D F + F^2).

Sources: the network: Radford et al., "Language Models are Unsupervised Multitask Learners" (GPT-2), 2019, and on pixels
    Chen et al., "Generative Pretraining from Pixels" (Image GPT), ICML 2020. A learned vector for each axis: Child et
    al., "Generating Long Sequences with Sparse Transformers", 2019, arXiv:1904.10509, section 5.3. The label, added to
    every position: Parmar et al., "Image Transformer", ICML 2018, arXiv:1802.05751.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from gm_jax.networks.attention import KeysAndValues
from gm_jax.networks.label_bias import LabelBias, add_bias
from gm_jax.networks.masked_conv import at_column
from gm_jax.networks.transformer_trunk import TransformerTrunk
from gm_jax.types import Array


class TransformerCache(NamedTuple):
    """The transformer's cache.

    Attributes:
        layers: keys and values of each layer.
        known: [n, D, F] the terms of (1) that do not depend on x.
    """

    layers: tuple[KeysAndValues, ...]
    known: Array


class CausalTransformer(TransformerTrunk):
    """A causal transformer (1)-(3): levels [B, ...] -> outputs [B, ..., P].

    The last row of the embedding is the start token. Without layers, the outputs at i depend on x_{i-1} only.

    Attributes:
        num_classes: number of classes of the labels; None for a network without labels.

    Other attributes are those of the trunk.
    """

    num_classes: int | None = None

    def setup(self) -> None:
        super().setup()
        self.label_bias = LabelBias(self.num_classes, self.features, self.dtype)

    def __call__(self, x: Array, label: Array | None = None) -> Array:
        """Maps levels x [B, ...] and labels [B] to outputs [B, ..., P]; x may be flat, [B, D].

        Raises:
            ValueError: x has another shape.
        """
        if x.shape[1:] not in (self.event_shape, (self.num_dims,)):
            raise ValueError(f"the transformer is made for examples of {self.event_shape}, not {x.shape[1:]}.")
        return self.from_embedded(self.embed(x), label).reshape(*x.shape, self.outputs_per_dim)

    def embed(self, x: Array) -> Array:
        """Maps levels x [B, ...] to e(x) [B, D, F]."""
        return self.embedding(x.reshape(x.shape[0], self.num_dims))

    def from_embedded(self, e: Array, label: Array | None = None) -> Array:
        """Maps embedded levels e(x) [B, D, F] to outputs [B, D, P]."""
        start = jnp.broadcast_to(self.embedding(jnp.int32(self.levels)), (e.shape[0], 1, self.features))
        h = jnp.concatenate([start, e[:, :-1]], axis=1) + self._known(label)
        return self.read(h, np.tri(self.num_dims, dtype=bool))

    def begin(self, n: int, label: Array | None = None) -> TransformerCache:
        """Returns the cache before the first position of n examples."""
        dtype = self.dtype or jnp.result_type(float)
        known = jnp.broadcast_to(self._known(label), (n, self.num_dims, self.features))
        return TransformerCache(tuple(block.begin(n, self.num_dims, dtype) for block in self.blocks), known)

    def step(self, cache: TransformerCache, i: Array, previous: Array) -> tuple[TransformerCache, Array]:
        """Computes the outputs [n, P] of position i, given the level [n] before it."""
        h = self.embedding(jnp.where(i > 0, previous, self.levels)) + at_column(cache.known, i)
        layers = []
        for block, layer in zip(self.blocks, cache.layers, strict=True):
            layer, h = block.step(layer, i, h)
            layers.append(layer)
        return cache._replace(layers=tuple(layers)), self.readout(self.norm(h))

    def _known(self, label: Array | None) -> Array:
        """Computes the terms of (1) that do not depend on x: [1, D, F], or [B, D, F] with labels [B]."""
        total = self.sum_of_positions()
        bias = self.label_bias(label)
        return total if bias is None else add_bias(jnp.broadcast_to(total, (bias.shape[0], *total.shape[1:])), bias)
