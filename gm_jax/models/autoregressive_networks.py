"""The parts of an autoregressive model: a network of the conditionals, and the likelihood that its outputs define.

    log p(x | k, y) = sum_i log p(x_i | x_<i, y),    "<" in the k-th of K orderings, y an optional label

An `OrderedNetwork` computes the parameters of all D conditionals at once, to train, and of one after the other, to
sample. A `PixelLikelihood` defines the distribution that they parametrise, and converts the data to levels and back.
`autoregressive.Autoregressive` combines the two.

Dense networks (`networks.{fvsbn,nade,made}`) take any orderings. Convolutional, recurrent and attending networks
(`networks.{pixelcnn,pixelrnn,wavenet,transformer}`) take the raster order: row by row, left to right, channels fastest.
To compute one step of sampling they need what they kept of earlier steps. Their modules have four methods:

    (x [B, ...] levels, label) -> outputs [B, ..., P]         all conditionals at once, to train
    begin(n, label) -> cache                                  one after the other, to sample
    begin_row(cache, row, previous) -> cache                  images only
    step(cache, i, previous) -> (cache, outputs [n, P])
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.errors import UserError
from gm_jax.losses import autoregressive as losses
from gm_jax.models.decoder_likelihoods import MIN_LOG_SCALE, bounded_below
from gm_jax.ops import checks
from gm_jax.ops.levels import measure
from gm_jax.samplers import autoregressive as samplers
from gm_jax.types import Array, Key, PyTree


class OrderedNetwork(NamedTuple):
    """The conditionals for each of K orderings, as functions of one set of parameters.

    x [B, D] int32 levels and outputs [B, D, P] are in the order of the data, `x.reshape(B, -1)`; `conditionals` follows
    the order of generation. label is [B] int32, or None for a network without labels; k is an index, traced or not.

    Attributes:
        init: (key, x, label) -> params.
        outputs: (params, x, label, k, dropout_key=None) -> [B, D, P]; the output of a dimension depends on earlier
            dimensions only. With a key the network drops units, as in training.
        conditionals: (params, label, k) -> `samplers.autoregressive.Conditionals`.
        orders: [K, D]; orders[k, i] is the dimension that is generated at position i.
        init_examples: how many examples `init` gets at most; more than one if it depends on them.
    """

    init: Callable[[Key, Array, Array | None], PyTree]
    outputs: Callable[..., Array]
    conditionals: Callable[[PyTree, Array | None, int | Array], samplers.Conditionals]
    orders: np.ndarray
    init_examples: int = 1


class PixelLikelihood(NamedTuple):
    """The distribution p(x_i | x_<i) of one dimension, as functions of a network's outputs.

    Attributes:
        prepare: (key, raw [B, ...]) -> integer levels [B, ...], the variable that the likelihood is defined on.
        to_data: levels [B, ...] int32 -> [B, ...] as the data set ships it.
        nll: (x [B, D], outputs [B, D, P]) -> [B] nats; the dimensions may be any subset.
        draw: (key, outputs [n, P], temperature) -> [n] int32.
        measure: the base measure of p(x): "binary" or "<n> levels".
        outputs_per_dim: P; "P" if any number fits.
    """

    prepare: Callable[[Key, Array], Array]
    to_data: Callable[[Array], Array]
    nll: Callable[[Array, Array], Array]
    draw: samplers.DrawFn
    measure: str
    outputs_per_dim: int | str = "P"


def bernoulli(binarize: Callable[[Key, Array], Array], *, levels: int) -> PixelLikelihood:
    """Binary dimensions; one output each, the log-odds of 1.

    Args:
        binarize: (key, raw) -> 0 or 1: one of `ops.binarization`, with its noise drawn from the key.
        levels: number of levels of the raw data; samples are 0 or levels - 1.
    """
    return PixelLikelihood(
        prepare=lambda key, raw: binarize(key, raw).astype(jnp.int32),
        to_data=lambda x: ((levels - 1) * x).astype(jnp.uint8),
        nll=lambda x, outputs: losses.bernoulli_nll(x.astype(outputs.dtype), outputs[..., 0]),
        draw=samplers.draw_bernoulli,
        measure="binary",
        outputs_per_dim=1,
    )


def categorical(*, levels: int) -> PixelLikelihood:
    """One of L unordered levels; L outputs, the logits.

    Args:
        levels: L, the number of levels of the raw data.
    """
    return PixelLikelihood(
        prepare=lambda key, raw: raw.astype(jnp.int32),
        to_data=lambda x: x.astype(jnp.uint8),
        nll=losses.categorical_nll,
        draw=samplers.draw_categorical,
        measure=measure(levels),
        outputs_per_dim=levels,
    )


def codes(*, num_codes: int) -> PixelLikelihood:
    """One of K codes of a quantiser, which are not levels of an image: int32 data; K outputs, the logits.

    Args:
        num_codes: K.
    """
    return categorical(levels=num_codes)._replace(to_data=lambda x: x)


def discretized_logistic_mixture(*, levels: int) -> PixelLikelihood:
    """One of L ordered levels: the bins of a mixture of M logistics; 3 M outputs.

    The outputs are M logits of the weights, M locations on the scale where the levels span [-1, 1] and M log-scales,
    which stay above MIN_LOG_SCALE.

    Args:
        levels: L, the number of levels of the raw data.
    """

    def mixture(outputs: Array) -> tuple[Array, Array, Array]:
        if outputs.shape[-1] % 3:
            raise UserError(f"a mixture of M logistics needs 3 M outputs per dimension, and has {outputs.shape[-1]}.")
        logit_weights, means, free_log_scales = jnp.split(outputs, 3, axis=-1)
        return logit_weights, means, bounded_below(free_log_scales, MIN_LOG_SCALE)

    def draw(key: Key, outputs: Array, temperature: float | Array = 1.0) -> Array:
        outputs = jnp.concatenate(mixture(outputs), axis=-1)
        return samplers.draw_discretized_logistic_mixture(key, outputs, temperature, levels=levels)

    return PixelLikelihood(
        prepare=lambda key, raw: raw.astype(jnp.int32),
        to_data=lambda x: x.astype(jnp.uint8),
        nll=lambda x, outputs: losses.discretized_logistic_mixture_nll(x, *mixture(outputs), levels=levels),
        draw=draw,
        measure=measure(levels),
    )


def masked_network(module: nn.Module, structures: PyTree, orders: np.ndarray) -> OrderedNetwork:
    """An `OrderedNetwork` of one of `networks.{fvsbn,nade,made}`, with one output per dimension: log-odds of 1.

    Published results of these networks are on binary images. For data of several levels use `image_network`.

    Args:
        module: (x [B, D], structure, label) -> logits [B, D], with methods `begin` and `step`.
        structures: arrays that define each ordering to the module, stacked along a leading axis of K.
        orders: [K, D], the orderings.
    """

    def structure(k: int | Array) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[k], structures)

    def outputs(params: PyTree, x: Array, label: Array | None, k: int | Array, dropout_key: Key | None = None) -> Array:
        return _apply(module, params, x, structure(k), label, dropout_key=dropout_key)[..., None]

    def conditionals(params: PyTree, label: Array | None, k: int | Array) -> samplers.Conditionals:
        def step(cache: PyTree, i: Array, previous: Array) -> tuple[PyTree, Array]:
            cache, logits = _apply(module, params, cache, i, previous, structure(k), method="step")
            return cache, logits[:, None]

        return samplers.Conditionals(init=lambda n: _apply(module, params, n, label, method="begin"), step=step)

    def init(key: Key, x: Array, label: Array | None) -> PyTree:
        logits, variables = module.init_with_output(key, x, structure(0), label)
        checks.check_outputs("the network", logits, x.shape)
        return variables["params"]

    return OrderedNetwork(init, outputs, conditionals, orders)


def image_network(module: nn.Module) -> OrderedNetwork:
    """An `OrderedNetwork` of one of `networks.{pixelcnn,pixelrnn}`.

    Args:
        module: has `event_shape` (H, W, C) and the four methods.
    """
    _, width, channels = module.event_shape
    return _raster_network(module, module.event_shape, row_length=width * channels)


def sequence_network(module: nn.Module, *, length: int) -> OrderedNetwork:
    """An `OrderedNetwork` of one of `networks.{wavenet,transformer}`.

    Args:
        module: has the methods except `begin_row`.
        length: T. Images enter as sequences of their H * W * C levels; a transformer knows their shape.
    """
    return _raster_network(module, (length,), row_length=None)


def _apply(
    module: nn.Module, params: PyTree, *args: Any, method: str | None = None, dropout_key: Key | None = None
) -> PyTree:
    """Applies a module without mutable collections, so that it returns only its output."""
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    return module.apply({"params": params}, *args, method=method, rngs=rngs)


def _raster_network(module: nn.Module, shape: tuple[int, ...], *, row_length: int | None) -> OrderedNetwork:
    def init(key: Key, x: Array, label: Array | None) -> PyTree:
        x = x.reshape(-1, *shape)
        outputs, variables = module.init_with_output(key, x, label)
        checks.check_outputs("the network", outputs, (*x.shape, "P"))
        return variables["params"]

    def outputs(params: PyTree, x: Array, label: Array | None, k: int | Array, dropout_key: Key | None = None) -> Array:
        outputs = _apply(module, params, x.reshape(-1, *shape), label, dropout_key=dropout_key)
        return outputs.reshape(*x.shape, outputs.shape[-1])

    def conditionals(params: PyTree, label: Array | None, k: int | Array) -> samplers.Conditionals:
        call = partial(_apply, module, params)
        return samplers.Conditionals(
            init=lambda n: call(n, label, method="begin"),
            step=partial(call, method="step"),
            begin_row=None if row_length is None else partial(call, method="begin_row"),
            row_length=row_length,
        )

    return OrderedNetwork(init, outputs, conditionals, orders=np.arange(math.prod(shape))[None])
