"""Autoregressive models in raster order: PixelCNN, gated PixelCNN, PixelRNN on images; WaveNet on sequences.

    log p(x | y) = sum_i log p(x_i | x_<i, y),    i row by row, left to right, channels fastest

Their networks are convolutional: what they do for a step of sampling needs the rows above, or the last so many steps,
and nothing else. A network module takes part by four methods,

    (x [B, ...] levels, label) -> outputs [B, ..., P]         all conditionals, to train
    begin(n, label) -> cache                                  one after the other, to sample
    begin_row(cache, row, previous) -> cache                  images only
    step(cache, i, previous) -> (cache, outputs [n, P])

which `image_network` and `sequence_network` make a `conditionals.Network` of, for `autoregressive.autoregressive`.
"""

import math
from functools import partial

import flax.linen as nn
import numpy as np

from gm_jax.samplers import autoregressive as samplers
from gm_jax.types import Array, Key, PyTree
from tests.models.old_conditionals import Network


def image_network(module: nn.Module) -> Network:
    """A `Network` of one of `networks.{pixelcnn,pixelrnn}`.

    Args:
        module: with `event_shape` (H, W, C) and the four methods.
    """
    _, width, channels = module.event_shape
    return _raster_network(module, module.event_shape, row_length=width * channels)


def sequence_network(module: nn.Module, *, length: int) -> Network:
    """A `Network` of `networks.wavenet`.

    Args:
        module: with the methods, less `begin_row`.
        length: T. Images go in as sequences of their H * W * C levels.
    """
    return _raster_network(module, (length,), row_length=None)


def _raster_network(module: nn.Module, shape: tuple[int, ...], *, row_length: int | None) -> Network:
    num_dims = math.prod(shape)

    def init(key: Key, x: Array, label: Array | None) -> PyTree:
        return module.init(key, x.reshape(-1, *shape), label)["params"]

    def outputs(params: PyTree, x: Array, label: Array | None, k: int | Array) -> Array:
        outputs = module.apply({"params": params}, x.reshape(-1, *shape), label)
        return outputs.reshape(*x.shape, outputs.shape[-1])

    def conditionals(params: PyTree, label: Array | None, k: int | Array) -> samplers.Conditionals:
        call = partial(module.apply, {"params": params})
        return samplers.Conditionals(
            init=lambda n: call(n, label, method="begin"),
            step=partial(call, method="step"),
            begin_row=None if row_length is None else partial(call, method="begin_row"),
            row_length=row_length,
        )

    return Network(init, outputs, conditionals, orders=np.arange(num_dims)[None])
