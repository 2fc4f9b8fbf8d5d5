"""Autoregressive models: exact likelihoods by the chain rule, whatever the network and the ordering.

    log p(x | k, y) = sum_i log p(x_i | x_<i, y),    "<" in the k-th of K orderings                  (1)
    log p(x)        = log 1/(K C) sum_k sum_y p(x | k, y)                                             (2)

y is a class label, where the network takes one, and C the number of classes. Both sums are part of the model: it first
draws an ordering and a label, each uniformly, and then x. So (2) is exact, and what `sample` draws from; the mean of
the K C values of (1) would be less. Training minimises -(1) for the label that the data have and an ordering drawn
anew for each step (Germain et al., ICML 2015, arXiv:1502.03509, section 4.2).

The parameters of the conditionals are a `conditionals.Network`'s, what they mean is a `conditionals.Output`'s.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.errors import UserError, refuse_options
from gm_jax.ops import reductions
from gm_jax.samplers import autoregressive as samplers
from gm_jax.types import Array, Batch, Key, Likelihood, Model, ModelState, Objective, Params
from tests.models.old_conditionals import Network, Output


class Autoregressive(NamedTuple):
    """The family's record, and what exact conditionals add to it.

    Attributes:
        model: init, the one objective, sample, and log_prob: (2).
        sample: (params, model_state, key, n, *, label=None, temperature=None) -> [n, ...]: `model.sample` with a
            temperature.
        sample_naive: the same draws, by a pass through the whole network for each dimension.
        complete: (params, key, x [B, ...], num_kept, *, label=None, temperature=1.0) -> [B, ...]: keeps the first
            num_kept dimensions, in the first ordering, and draws the rest given them: exact, where K = 1. Without a
            label it is drawn too, given what is kept.
    """

    model: Model
    sample: Callable[..., Array]
    sample_naive: Callable[..., Array]
    complete: Callable[..., Array]


def autoregressive(
    network: Network, output: Output, *, shape: tuple[int, ...], num_classes: int | None = None
) -> Autoregressive:
    """An autoregressive model of any network that keeps the contract.

    Args:
        network: the conditionals' parameters.
        output: what they mean.
        shape: of one example, e.g. (28, 28, 1); D is the product.
        num_classes: C, for a network that takes labels; None for one that takes none.
    """
    num_orders, num_dims = network.orders.shape
    orders = jnp.asarray(network.orders)

    def nll(params: Params, x: Array, label: Array | None, k: int | Array, dims: Array | None = None) -> Array:
        """-(1) [B] of x [B, D], summed over some of the dimensions or all."""
        outputs = network.outputs(params["autoregressive"], x, label, k)
        outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        return output.nll(x, outputs) if dims is None else output.nll(x[:, dims], outputs[:, dims])

    def prepare(key: Key, raw: Array) -> Array:
        return output.prepare(key, raw).reshape(raw.shape[0], num_dims)

    def labels_of(batch: Batch) -> Array | None:
        if num_classes is not None and "label" not in batch:
            raise UserError("the model is conditioned on labels and the data have none")
        return None if num_classes is None else batch["label"]

    def log_prob_of_each_label(params: Params, x: Array, k: int | Array, dims: Array | None = None) -> Array:
        """(1) [C, B] of the dimensions, for every label; C = 1 where there are none."""
        if num_classes is None:
            return -nll(params, x, None, k, dims)[None]
        return jax.lax.map(lambda y: -nll(params, x, jnp.full(x.shape[0], y), k, dims), jnp.arange(num_classes))

    def init(key: Key, batch: Batch) -> tuple[Params, ModelState]:
        prepare_key, params_key = jax.random.split(key)
        label = labels_of(batch)
        x = prepare(prepare_key, batch["x"][:1])
        return {"autoregressive": network.init(params_key, x, None if label is None else label[:1])}, {}

    def loss(params: Params, model_state: ModelState, key: Key, batch: Batch):
        prepare_key, order_key = jax.random.split(key)
        k = jax.random.randint(order_key, (), 0, num_orders) if num_orders > 1 else 0
        value = jnp.mean(nll(params, prepare(prepare_key, batch["x"]), labels_of(batch), k))
        return value, (model_state, {"nll": value})

    def log_prob(params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        x = prepare(key, x)
        if num_orders == 1:
            log_p = log_prob_of_each_label(params, x, 0)
        else:
            log_p = jax.lax.map(lambda k: log_prob_of_each_label(params, x, k), jnp.arange(num_orders))
            log_p = log_p.reshape(-1, x.shape[0])
        counts = (("orderings", num_orders), ("labels", num_classes or 1))
        settings = tuple((name, count) for name, count in counts if count > 1)
        return Likelihood(
            reductions.log_mean_exp(log_p, axis=0), kind="exact", measure=output.measure, settings=settings
        )

    def generate(params: Params, key: Key, n: int, label, k, prefix, temperature, *, naive: bool) -> Array:
        """Levels [n, D] in the order of the data; the prefix is in the order of generation."""
        order, inverse = orders[k], jnp.argsort(orders[k])
        settings = {"prefix": prefix, "temperature": temperature}
        params = params["autoregressive"]
        if naive:
            x = samplers.sample_naive(
                lambda x: network.outputs(params, x[:, inverse], label, k)[:, order],
                *(output.draw, key, n, num_dims),
                **settings,
            )
        else:
            x = samplers.sample(network.conditionals(params, label, k), output.draw, key, n, num_dims, **settings)
        return x[:, inverse]

    def sample(params, model_state, key, n, *, label=None, temperature=None, naive=False) -> Array:
        label_key, order_key, key = jax.random.split(key, 3)
        if num_classes is None:
            refuse_options(label=label)
        temperature = 1.0 if temperature is None else temperature
        if label is None and num_classes is not None:
            label = jax.random.randint(label_key, (n,), 0, num_classes)
        draw = partial(generate, params, prefix=None, temperature=temperature, naive=naive)
        if num_orders == 1:
            x = draw(key, n, label, 0)
        else:
            one = lambda key, label, k: draw(key, 1, None if label is None else label[None], k)[0]  # noqa: E731
            k = jax.random.randint(order_key, (n,), 0, num_orders)
            x = jax.vmap(one)(jax.random.split(key, n), label, k)
        return output.to_data(x.reshape(n, *shape))

    def complete(params, key, x, num_kept, *, label=None, temperature=1.0) -> Array:
        prepare_key, label_key, key = jax.random.split(key, 3)
        x = prepare(prepare_key, x)
        kept = orders[0, :num_kept]
        if label is None and num_classes is not None:
            label = jax.random.categorical(label_key, log_prob_of_each_label(params, x, 0, kept), axis=0)
        x = generate(params, key, x.shape[0], label, 0, x[:, kept], temperature, naive=False)
        return output.to_data(x.reshape(-1, *shape))

    model = Model(init, (Objective("autoregressive", loss),), sample, log_prob)
    return Autoregressive(model, sample, partial(sample, naive=True), complete)


def grids(model: Autoregressive, shape: tuple[int, ...]) -> Mapping[str, Callable]:
    """Pictures as functions (params, model_state, key, x) -> [rows, columns, *shape] on the data set's scale.

    completions: rows of data, each above what the model makes of its first half (the top, in raster order).

    Args:
        model: as `autoregressive` makes it.
        shape: of one example.
    """

    def completions(params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        completed = model.complete(params, key, x[:50], int(np.prod(shape)) // 2)
        rows = jnp.stack([leaf.reshape(5, 10, *shape) for leaf in (x[:50], completed)], axis=1)
        return rows.reshape(10, 10, *shape)

    return {"completions": completions}
