"""Autoregressive models: exact likelihoods by the chain rule, for any network and any orderings.

    log p(x | k, y) = sum_i log p(x_i | x_<i, y),    "<" in the k-th of K orderings                  (1)
    log p(x)        = log 1/(K C) sum_k sum_y p(x | k, y)                                             (2)

y is a class label, if the network takes one, and C the number of classes. Both sums are part of the model: it draws an
ordering and a label, each uniformly, and then x. So (2) is the exact likelihood of what `Autoregressive.sample` draws;
the mean of the K C values of (1) would be smaller. Training minimises -(1) for the label of the data and an ordering
that is drawn at each step (Germain et al., ICML 2015, arXiv:1502.03509, section 4.2).

An `autoregressive_networks.OrderedNetwork` computes the parameters of the conditionals, and an
`autoregressive_networks.PixelLikelihood` defines the distribution that they parametrise.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from gm_jax.errors import NO_LABELS, UserError, refuse_options
from gm_jax.models.autoregressive_networks import OrderedNetwork, PixelLikelihood
from gm_jax.ops import checks, reductions
from gm_jax.samplers import autoregressive as samplers
from gm_jax.types import Array, Batch, Key, Likelihood, Metrics, Model, ModelState, Objective, Params


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Autoregressive:
    """An autoregressive model of any network that keeps the contract.

    Attributes:
        network: computes the parameters of the conditionals.
        likelihood: the distribution that they parametrise.
        shape: shape of one example, e.g. (28, 28, 1); D is the product.
        num_classes: C, for a network with labels; None for a network without.
    """

    network: OrderedNetwork
    likelihood: PixelLikelihood
    shape: tuple[int, ...]
    num_classes: int | None = None

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and sampling use."""
        return Model(self.init, (Objective("autoregressive", self.loss),), self.sample, self.log_prob)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises the network, and checks the shape of its outputs."""
        prepare_key, params_key = jax.random.split(key)
        label, count = self._label_of(batch), self.network.init_examples
        label = None if label is None else label[:count]
        checks.check_example(self.shape, batch["x"])
        x = self._prepare(prepare_key, batch["x"][:count])
        params = {"autoregressive": self.network.init(params_key, x, label)}
        jax.eval_shape(lambda x: self.nll(params, x, label, 0), x)
        return params, {}

    def loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Computes the mean of -(1) in one ordering, drawn from the K, with dropout if the network has a rate."""
        prepare_key, order_key, dropout_key = jax.random.split(key, 3)
        k = jax.random.randint(order_key, (), 0, self.num_orders) if self.num_orders > 1 else 0
        x, label = self._prepare(prepare_key, batch["x"]), self._label_of(batch)
        value = jnp.mean(self.nll(params, x, label, k, dropout_key=dropout_key))
        return value, (model_state, {"nll": value})

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes (2) exactly; the key prepares x."""
        x = self._prepare(key, x)
        if self.num_orders == 1:
            log_p = self._log_prob_of_each_label(params, x, 0)
        else:
            log_p = jax.lax.map(lambda k: self._log_prob_of_each_label(params, x, k), jnp.arange(self.num_orders))
            log_p = log_p.reshape(-1, x.shape[0])
        counts = (("orderings", self.num_orders), ("labels", self.num_classes or 1))
        settings = tuple((name, count) for name, count in counts if count > 1)
        return Likelihood(reductions.log_mean_exp(log_p, axis=0), "exact", self.likelihood.measure, settings)

    def sample(
        self,
        params: Params,
        model_state: ModelState,
        key: Key,
        n: int,
        *,
        label: Array | None = None,
        temperature: float | Array | None = None,
    ) -> Array:
        """Draws [n, ...] as the data set ships it: an ordering and, unless given, a label, then every dimension.

        The temperature divides the logits of each conditional, and multiplies the scales of logistics.
        """
        x, _, _ = self._draw(params, key, n, label, temperature)
        return self.likelihood.to_data(x.reshape(n, *self.shape))

    def sample_mean(self, params: Params, model_state: ModelState, key: Key, n: int) -> Array:
        """Means of the conditionals that `sample` draws binary data from with the same key: float32 [n, ...].

        Raises:
            ValueError: the data are not binary.
        """
        if self.likelihood.measure != "binary":
            raise ValueError(f"sample_mean needs binary data, not {self.likelihood.measure}")
        x, label, k = self._draw(params, key, n, None, None)

        def probability_of_one(x: Array, label: Array | None, k: Array) -> Array:
            outputs = self.network.outputs(params["autoregressive"], x[None], None if label is None else label[None], k)
            outputs = outputs[0, :, None].astype(jnp.promote_types(outputs.dtype, jnp.float32))
            return jnp.exp(-self.likelihood.nll(jnp.ones((x.shape[0], 1), jnp.int32), outputs))

        means = jax.vmap(probability_of_one)(x, label, k).reshape(n, *self.shape)
        return means * self.likelihood.to_data(jnp.int32(1))

    def complete(
        self,
        params: Params,
        key: Key,
        x: Array,
        num_kept: int,
        *,
        label: Array | None = None,
        temperature: float | Array | None = None,
    ) -> Array:
        """Keeps the first num_kept dimensions of x [B, ...] in the first ordering, and draws the others given them.

        The draws are exact if K = 1. Without a label, the label is drawn from p(y | kept dimensions).
        """
        prepare_key, label_key, key = jax.random.split(key, 3)
        x = self._prepare(prepare_key, x)
        kept = jnp.asarray(self.network.orders)[0, :num_kept]
        if label is None and self.num_classes is not None:
            label = jax.random.categorical(label_key, self._log_prob_of_each_label(params, x, 0, kept), axis=0)
        x = self.generate(params, key, x.shape[0], label, 0, prefix=x[:, kept], temperature=temperature)
        return self.likelihood.to_data(x.reshape(-1, *self.shape))

    def nll(
        self,
        params: Params,
        x: Array,
        label: Array | None,
        k: int | Array,
        dims: Array | None = None,
        *,
        dropout_key: Key | None = None,
    ) -> Array:
        """Computes -(1) [B] of levels x [B, D] in the k-th ordering, summed over `dims`, by default over all."""
        outputs = self.network.outputs(params["autoregressive"], x, label, k, dropout_key)
        checks.check_outputs("the network", outputs, (*x.shape, self.likelihood.outputs_per_dim))
        outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        return self.likelihood.nll(x, outputs) if dims is None else self.likelihood.nll(x[:, dims], outputs[:, dims])

    def generate(
        self,
        params: Params,
        key: Key,
        n: int,
        label: Array | None,
        k: int | Array,
        *,
        prefix: Array | None = None,
        temperature: float | Array | None = None,
    ) -> Array:
        """Draws levels [n, D], in the order of the data, in the k-th ordering.

        Args:
            params: parameters of the model.
            key: noise.
            n: number of samples.
            label: [n] int32, or None for a network without labels.
            k: index of the ordering.
            prefix: [n, P] levels of the first P dimensions, in the order of generation.
            temperature: as in `sample`.
        """
        inverse = jnp.argsort(jnp.asarray(self.network.orders)[k])
        conditionals = self.network.conditionals(params["autoregressive"], label, k)
        temperature = 1.0 if temperature is None else temperature
        x = samplers.sample(
            conditionals, self.likelihood.draw, key, n, self.num_dims, prefix=prefix, temperature=temperature
        )
        return x[:, inverse]

    @property
    def num_orders(self) -> int:
        """K."""
        return self.network.orders.shape[0]

    @property
    def num_dims(self) -> int:
        """D."""
        return self.network.orders.shape[1]

    def _draw(
        self, params: Params, key: Key, n: int, label: Array | None, temperature: float | Array | None
    ) -> tuple[Array, Array | None, Array]:
        """Draws levels [n, D], and returns them with the labels [n] and the orderings [n] that they were drawn in."""
        label_key, order_key, key = jax.random.split(key, 3)
        if self.num_classes is None:
            refuse_options(label=label)
        elif label is None:
            label = jax.random.randint(label_key, (n,), 0, self.num_classes)
        if self.num_orders == 1:
            x = self.generate(params, key, n, label, 0, temperature=temperature)
            return x, label, jnp.zeros(n, jnp.int32)
        k = jax.random.randint(order_key, (n,), 0, self.num_orders)
        generate_one = partial(self._generate_one, params, temperature=temperature)
        return jax.vmap(generate_one)(jax.random.split(key, n), label, k), label, k

    def _generate_one(
        self, params: Params, key: Key, label: Array | None, k: Array, *, temperature: float | Array | None
    ) -> Array:
        return self.generate(params, key, 1, None if label is None else label[None], k, temperature=temperature)[0]

    def _log_prob_of_each_label(self, params: Params, x: Array, k: int | Array, dims: Array | None = None) -> Array:
        """(1) [C, B], summed over `dims`, for every label; C = 1 without labels."""
        if self.num_classes is None:
            return -self.nll(params, x, None, k, dims)[None]
        return jax.lax.map(
            lambda y: -self.nll(params, x, jnp.full(x.shape[0], y), k, dims), jnp.arange(self.num_classes)
        )

    def _prepare(self, key: Key, raw: Array) -> Array:
        return self.likelihood.prepare(key, raw).reshape(raw.shape[0], self.num_dims)

    def _label_of(self, batch: Batch) -> Array | None:
        if self.num_classes is None:
            return None
        if "label" not in batch:
            raise UserError(NO_LABELS)
        return batch["label"]
