"""Masked (absorbing) diffusion of levels: an autoregressive model of every order at once.

    -log p(x) <= sum_(k=1..D) 1/k E_(|M|=k)[ sum_(i in M) -log p(x_i | x outside of M) ]                   (1)
    log p(x | order) = sum_j log p(x_o(j) | x_o(1) ... x_o(j-1))                                           (2)
    log p(x) = log E_order[ p(x | order) ]                                                                 (3)

One network predicts every masked dimension from the visible ones. Training minimises (1), with k uniform and D/k in
place of the sum. (1) is also the bound of the diffusion that masks dimensions in continuous time, with any schedule:
see `losses.masked_diffusion`. `sample` draws an order for each sample and then, with as many steps as dimensions, from
(2). So (3) is the model's likelihood; (1), and the logarithm of the mean over a few orders, bound it from below; and
(2) is exact for the model that always generates in that order.

Sources: Shi et al., NeurIPS 2024, arXiv:2406.04329; Sahoo et al., NeurIPS 2024, arXiv:2406.07524; Hoogeboom et al.,
ICLR 2022, arXiv:2110.02037; Uria, Murray & Larochelle, ICML 2014, arXiv:1310.1757.
"""

import dataclasses
import math
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.losses import masked_diffusion as losses
from gm_jax.models.autoregressive_networks import PixelLikelihood
from gm_jax.ops import checks, masking, reductions
from gm_jax.samplers import masked as samplers
from gm_jax.types import Array, Batch, Key, Likelihood, LossOutput, Model, ModelState, Objective, Params


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MaskedDiffusion:
    """Masked diffusion with any network that sees which dimensions are masked.

    Attributes:
        network: a module, (x [B, D] levels, is_masked [B, D]) -> outputs [B, D, P]; it must not read x where masked.
        likelihood: the distribution of one dimension that the outputs parametrise.
        shape: shape of one example, e.g. (28, 28, 1); D is the product.
        sampling_steps: network passes of a sample; None for D, one for each dimension.
        bound_terms: sizes k that `log_prob` sums over, spread evenly over 1 ... D and drawn; None for all of them.
        mixture_orders: orders of `mixture_log_prob`.
    """

    network: nn.Module
    likelihood: PixelLikelihood
    shape: tuple[int, ...]
    sampling_steps: int | None = None
    bound_terms: int | None = None
    mixture_orders: int = 10

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and sampling use."""
        return Model(self.init, (Objective("masked_diffusion", self.loss),), self.sample, self.log_prob)

    @property
    def num_dims(self) -> int:
        """D."""
        return math.prod(self.shape)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises the network, and checks the shape of its outputs."""
        checks.check_example(self.shape, batch["x"])
        x, params_key = self._prepare(key, batch["x"][:1])
        params = {"masked_diffusion": self.network.init(params_key, x, jnp.ones(x.shape, bool))["params"]}
        jax.eval_shape(lambda x: self.nll_of_masked(params, x, jnp.ones(x.shape, bool)), x)
        return params, {}

    def loss(self, params: Params, model_state: ModelState, key: Key, batch: Batch) -> LossOutput:
        """Computes the mean of (1), from one size and one set for each example, with dropout if the network has it."""
        x, key = self._prepare(key, batch["x"])
        count_key, order_key, dropout_key = jax.random.split(key, 3)
        counts = masking.draw_counts(count_key, *x.shape)
        is_masked = masking.mask_first(counts, masking.draw_orders(order_key, *x.shape))
        nll = self.nll_of_masked(params, x, is_masked, dropout_key=dropout_key)
        value = jnp.mean(losses.any_order_loss(nll, is_masked))
        return value, (model_state, {"bound": value})

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Estimates the bound (1), with one set of each size for each example; all sizes or `bound_terms` of them."""
        x, key = self._prepare(key, x)
        size_key, order_key = jax.random.split(key)
        terms = self.bound_terms or self.num_dims
        if self.bound_terms is None:
            counts = jnp.broadcast_to(1 + jnp.arange(terms)[:, None], (terms, x.shape[0]))
        else:
            draw = jax.vmap(lambda key: masking.draw_counts(key, terms, self.num_dims))
            counts = draw(jax.random.split(size_key, x.shape[0])).T
        orders = masking.draw_orders(order_key, *x.shape)

        def at(counts: Array) -> Array:
            is_masked = masking.mask_first(counts, orders)
            return losses.any_order_loss(self.nll_of_masked(params, x, is_masked), is_masked)

        bound = -jnp.mean(jax.lax.map(at, counts), axis=0)
        return Likelihood(bound, "lower_bound", self.likelihood.measure, (("sizes", terms),))

    def log_prob_in_order(self, params: Params, key: Key, x: Array, order: Array) -> Likelihood:
        """Computes (2) exactly for one order [D], or for an order of each example [B, D]; the key prepares x."""
        x, _ = self._prepare(key, x)
        orders = jnp.broadcast_to(order, x.shape)
        return Likelihood(self._log_prob_in_orders(params, x, orders), "exact", self.likelihood.measure)

    def mixture_log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes the log of the mean of p(x | order) over drawn orders: a bound of (3), tighter with more orders."""
        x, key = self._prepare(key, x)

        def of_orders(key: Key) -> Array:
            return self._log_prob_in_orders(params, x, masking.draw_orders(key, *x.shape))

        log_p = jax.lax.map(of_orders, jax.random.split(key, self.mixture_orders))
        settings = (("orders", self.mixture_orders),)
        return Likelihood(reductions.log_mean_exp(log_p, axis=0), "lower_bound", self.likelihood.measure, settings)

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
        """Draws [n, ...] as the data set ships it, each sample in an order of its own."""
        refuse_options(label=label)
        order_key, key = jax.random.split(key)
        x = self._draw(params, key, masking.draw_orders(order_key, n, self.num_dims), temperature=temperature)
        return self.likelihood.to_data(x.reshape(n, *self.shape))

    def complete(
        self, params: Params, key: Key, x: Array, is_known: Array, *, temperature: float | None = None
    ) -> Array:
        """Keeps the known dimensions of x [B, ...], in any arrangement, and draws the others given them."""
        levels, key = self._prepare(key, x)
        order_key, key = jax.random.split(key)
        known = jnp.broadcast_to(is_known, x.shape).reshape(levels.shape)
        orders = masking.draw_orders(order_key, *levels.shape)
        drawn = self._draw(params, key, orders, x=jnp.where(known, levels, -1), temperature=temperature)
        return self.likelihood.to_data(drawn.reshape(x.shape))

    def nll_of_masked(self, params: Params, x: Array, is_masked: Array, *, dropout_key: Key | None = None) -> Array:
        """Computes -log p(x_i | the visible dimensions) [B, D] of levels x [B, D]; of visible ones it means nothing."""
        outputs = self._outputs(params, x, is_masked, dropout_key)
        flat = self.likelihood.nll(x.reshape(-1, 1), outputs.reshape(-1, 1, outputs.shape[-1]))
        return flat.reshape(x.shape)

    def _log_prob_in_orders(self, params: Params, x: Array, orders: Array) -> Array:
        places = jnp.argsort(orders, axis=1)

        def at(place: Array) -> Array:
            nll = self.nll_of_masked(params, x, places >= place)
            return jnp.take_along_axis(nll, orders[:, place][:, None], axis=1)[:, 0]

        return -jnp.sum(jax.lax.map(at, jnp.arange(self.num_dims)), axis=0)

    def _draw(
        self,
        params: Params,
        key: Key,
        orders: Array,
        *,
        x: Array | None = None,
        temperature: float | Array | None = None,
    ) -> Array:
        def predict(x: Array, is_masked: Array) -> Array:
            return self._outputs(params, x, is_masked)

        settings = {"num_steps": self.sampling_steps, "temperature": 1.0 if temperature is None else temperature}
        return samplers.sample(predict, self.likelihood.draw, key, orders, x=x, **settings)

    def _outputs(self, params: Params, x: Array, is_masked: Array, dropout_key: Key | None = None) -> Array:
        rngs = {} if dropout_key is None else {"dropout": dropout_key}
        outputs = cast(Array, self.network.apply({"params": params["masked_diffusion"]}, x, is_masked, rngs=rngs))
        checks.check_outputs("the network", outputs, (*x.shape, self.likelihood.outputs_per_dim))
        return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))

    def _prepare(self, key: Key, raw: Array) -> tuple[Array, Key]:
        """Returns levels [B, D], which are the same in every method for the same key, and a key for the rest."""
        prepare_key, key = jax.random.split(key)
        return self.likelihood.prepare(prepare_key, raw).reshape(raw.shape[0], self.num_dims), key
