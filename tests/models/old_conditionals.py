"""What an autoregressive model is made of: a network for the conditionals, and what its outputs mean.

    log p(x | k, y) = sum_i log p(x_i | x_<i, y),    "<" in the k-th of K orderings, y a label or nothing

A `Network` computes the parameters of all D conditionals at once, to train, and one after the other, to sample. An
`Output` says what they parametrise, and how levels come from data and go back. `models.autoregressive` makes a family
of the two.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.losses import autoregressive as losses
from gm_jax.models.decoder_likelihoods import MIN_LOG_SCALE
from gm_jax.ops.levels import measure
from gm_jax.samplers import autoregressive as samplers
from gm_jax.types import Array, Key, PyTree


class Network(NamedTuple):
    """The conditionals for each of K orderings, as functions of one set of parameters.

    x [B, D] int32 levels and outputs [B, D, P] are in the order of the data, `x.reshape(B, -1)`; `conditionals` goes
    in the order of generation. label [B] int32, or None for a network without; k is an index, traced or not.

    Attributes:
        init: (key, x, label) -> params.
        outputs: (params, x, label, k) -> [B, D, P]; that of dimension i depends on those before it alone.
        conditionals: (params, label, k) -> `samplers.autoregressive.Conditionals`.
        orders: [K, D]; orders[k, i] is the dimension that is generated at position i.
    """

    init: Callable[[Key, Array, Array | None], PyTree]
    outputs: Callable[[PyTree, Array, Array | None, int | Array], Array]
    conditionals: Callable[[PyTree, Array | None, int | Array], samplers.Conditionals]
    orders: np.ndarray


class Output(NamedTuple):
    """What a network's outputs mean: the distribution p(x_i | x_<i) of one dimension.

    Attributes:
        prepare: (key, raw [B, ...]) -> integer levels [B, ...], what the likelihood is defined on.
        to_data: levels [B, ...] int32 -> [B, ...] as the data set ships it.
        nll: (x [B, D], outputs [B, D, P]) -> [B] nats; the dimensions may be any subset.
        draw: (key, outputs [n, P], temperature) -> [n] int32.
        measure: what log p(x) is a density over: "binary" or "<n> levels".
    """

    prepare: Callable[[Key, Array], Array]
    to_data: Callable[[Array], Array]
    nll: Callable[[Array, Array], Array]
    draw: samplers.DrawFn
    measure: str


def bernoulli(binarize: Callable[[Key, Array], Array], *, levels: int) -> Output:
    """Binary dimensions; one output each, the log-odds of 1.

    Args:
        binarize: (key, raw) -> 0 or 1: one of `ops.binarization`, with its noise drawn from the key.
        levels: levels of the raw data; samples are 0 or levels - 1.
    """
    return Output(
        prepare=lambda key, raw: binarize(key, raw).astype(jnp.int32),
        to_data=lambda x: ((levels - 1) * x).astype(jnp.uint8),
        nll=lambda x, outputs: losses.bernoulli_nll(x.astype(outputs.dtype), outputs[..., 0]),
        draw=samplers.draw_bernoulli,
        measure="binary",
    )


def categorical(*, levels: int) -> Output:
    """One of L levels, with no order among them; L outputs, their logits.

    Args:
        levels: L, of the raw data.
    """
    return Output(
        prepare=lambda key, raw: raw.astype(jnp.int32),
        to_data=lambda x: x.astype(jnp.uint8),
        nll=losses.categorical_nll,
        draw=samplers.draw_categorical,
        measure=measure(levels),
    )


def discretized_logistic_mixture(*, levels: int) -> Output:
    """Levels that have an order: the bins of a mixture of M logistics; 3 M outputs.

    The outputs are M logits of the weights, M locations on the scale where the levels span [-1, 1] and M log-scales,
    which a softplus keeps above MIN_LOG_SCALE.

    Args:
        levels: L, of the raw data.
    """

    def bounded(outputs: Array) -> tuple[Array, Array, Array]:
        logit_weights, means, free = jnp.split(outputs, 3, axis=-1)
        return logit_weights, means, MIN_LOG_SCALE + jax.nn.softplus(free - MIN_LOG_SCALE)

    def draw(key: Key, outputs: Array, temperature: float | Array = 1.0) -> Array:
        outputs = jnp.concatenate(bounded(outputs), axis=-1)
        return samplers.draw_discretized_logistic_mixture(key, outputs, temperature, levels=levels)

    return Output(
        prepare=lambda key, raw: raw.astype(jnp.int32),
        to_data=lambda x: x.astype(jnp.uint8),
        nll=lambda x, outputs: losses.discretized_logistic_mixture_nll(x, *bounded(outputs), levels=levels),
        draw=draw,
        measure=measure(levels),
    )


def masked_network(module: nn.Module, structures: PyTree, orders: np.ndarray) -> Network:
    """A `Network` of one of `networks.{fvsbn,nade,made}`, of one output for each dimension: log-odds of binary ones.

    Their literature's results are on binary images; for levels there are the networks of `models.raster`.

    Args:
        module: (x [B, D], structure, label) -> logits [B, D], with methods `begin` and `step`.
        structures: what tells it the ordering: arrays stacked along a leading axis of K.
        orders: [K, D], the orderings themselves.
    """

    def structure(k: int | Array) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[k], structures)

    def outputs(params: PyTree, x: Array, label: Array | None, k: int | Array) -> Array:
        return module.apply({"params": params}, x, structure(k), label)[..., None]

    def conditionals(params: PyTree, label: Array | None, k: int | Array) -> samplers.Conditionals:
        def step(cache: PyTree, i: Array, previous: Array) -> tuple[PyTree, Array]:
            cache, logits = module.apply({"params": params}, cache, i, previous, structure(k), method="step")
            return cache, logits[:, None]

        return samplers.Conditionals(
            init=lambda n: module.apply({"params": params}, n, label, method="begin"), step=step
        )

    def init(key: Key, x: Array, label: Array | None) -> PyTree:
        return module.init(key, x, structure(0), label)["params"]

    return Network(init, outputs, conditionals, orders)
