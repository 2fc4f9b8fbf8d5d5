"""The variational autoencoder (Kingma & Welling, ICLR 2014, arXiv:1312.6114): the whole algorithm, top to bottom.

Latents z ~ N(0, I), a decoder p(x|z) and an encoder q(z|x) = N(mean(x), exp(log_var(x))), diagonal. Two lower bounds
on log p(x), in nats:

    L(x)   = E_q[log p(x|z)] - KL(q(z|x) || N(0, I))                                              (1)
    L_K(x) = E log 1/K sum_k w_k,    w_k = p(x|z_k) p(z_k) / q(z_k|x),    z_1 ... z_K ~ q(z|x)     (2)

`elbo_objective` trains (1) with its KL weighted by beta (Higgins et al., ICLR 2017). `iwae_objective` and the cheaper
`resampled_iwae_objective` train (2) (Burda, Grosse & Salakhutdinov, ICLR 2016, arXiv:1509.00519). `VAE.log_prob` is (2)
for every objective.

A `decoder_likelihoods.DecoderLikelihood` defines p(x|z). It also converts the data from the form in which the data set
ships them (uint8 levels, or float32 points), and converts samples back to that form.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.losses import combine
from gm_jax.losses import vae as losses
from gm_jax.models.decoder_likelihoods import DecoderLikelihood
from gm_jax.ops import checks
from gm_jax.ops.levels import space_setting
from gm_jax.types import Array, Batch, Key, Likelihood, Metrics, Model, ModelState, Objective, Params, PyTree

NllFn = Callable[[Array], Array]  # z [K, B, Z] -> -log p(x|z) [K, B] for the current batch
# (key, mean [B, Z], log_var [B, Z], nll_fn) -> (scalar to minimise, metrics)
ObjectiveFn = Callable[[Key, Array, Array, NllFn], tuple[Array, Metrics]]


def elbo_objective(*, beta: float = 1.0, num_samples: int = 1) -> ObjectiveFn:
    """The ELBO (1), with its KL in closed form and weighted by beta.

    Metrics: nll, kl and elbo. The elbo is unweighted, because a weighted loss is not a likelihood.

    Args:
        beta: weight of the KL; 1 is the ELBO.
        num_samples: latents drawn for each example.
    """

    def objective(key: Key, mean: Array, log_var: Array, nll_fn: NllFn) -> tuple[Array, Metrics]:
        z = _sample_posterior(key, mean, log_var, num_samples)
        terms = {"nll": jnp.mean(nll_fn(z), axis=0), "kl": losses.normal_kl_to_standard(mean, log_var)}
        metrics = {**terms, "elbo": losses.elbo(**terms)}
        loss = jnp.mean(combine.weighted_sum(terms, kl=beta))
        return loss, {name: jnp.mean(term) for name, term in metrics.items()}

    return objective


def iwae_objective(*, num_samples: int) -> ObjectiveFn:
    """The importance-weighted bound (2) with K = num_samples independent latents for each example.

    Metrics: iw_bound, and elbo, the mean of the same log-weights.

    Args:
        num_samples: K.
    """

    def objective(key: Key, mean: Array, log_var: Array, nll_fn: NllFn) -> tuple[Array, Metrics]:
        z = _sample_posterior(key, mean, log_var, num_samples)
        log_w = log_importance_weights(z, mean, log_var, nll_fn)
        iw_bound = jnp.mean(losses.importance_weighted_bound(log_w))
        return -iw_bound, {"iw_bound": iw_bound, "elbo": jnp.mean(log_w)}

    return objective


def resampled_iwae_objective(*, num_samples: int, num_resampled: int = 1) -> ObjectiveFn:
    """The bound (2), with its gradient estimated from a few of the K latents, resampled by their weights.

    A step costs K forward passes and `num_resampled` backward passes; `iwae_objective` costs K of both.

    Metrics: iw_bound, and elbo, the mean of the same log-weights.

    Args:
        num_samples: K.
        num_resampled: latents resampled for each example.
    """

    def objective(key: Key, mean: Array, log_var: Array, nll_fn: NllFn) -> tuple[Array, Metrics]:
        noise_key, choice_key = jax.random.split(key)
        eps = jax.random.normal(noise_key, (num_samples, *mean.shape), mean.dtype)

        def log_weights(eps: Array) -> Array:
            return log_importance_weights(losses.reparameterize(mean, log_var, eps), mean, log_var, nll_fn)

        log_w = jax.lax.stop_gradient(log_weights(eps))
        chosen = jax.random.categorical(choice_key, log_w, axis=0, shape=(num_resampled, mean.shape[0]))
        resampled = log_weights(jnp.take_along_axis(eps, chosen[..., None], axis=0))
        iw_bound = jnp.mean(losses.resampled_importance_weighted_bound(log_w, resampled))
        return -iw_bound, {"iw_bound": iw_bound, "elbo": jnp.mean(log_w)}

    return objective


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class VAE:
    """A variational autoencoder of any two networks that keep the contract.

    Attributes:
        encoder: [B, ...] floats -> (mean [B, Z], log_var [B, Z]).
        decoder: z [B, Z] -> outputs [B, ..., C * likelihood.outputs_per_dim].
        likelihood: p(x|z), as functions of the decoder's outputs.
        latent_dim: Z.
        objective: what training minimises, e.g. `elbo_objective(...)` or `iwae_objective(...)`.
        num_importance_samples: K of `log_prob`.
        num_elbo_samples: L of `elbo`.
        chunk_size: how many latents of each example evaluation decodes at a time.
    """

    encoder: nn.Module
    decoder: nn.Module
    likelihood: DecoderLikelihood
    latent_dim: int
    objective: ObjectiveFn
    num_importance_samples: int = 500
    num_elbo_samples: int = 1
    chunk_size: int = 50

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and sampling use."""
        return Model(self.init, (Objective("vae", self.loss),), self.sample, self.log_prob)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises both networks, and checks that their outputs have the right shapes."""
        encoder_key, decoder_key, prepare_key = jax.random.split(key, 3)
        x = self.likelihood.prepare(prepare_key, batch["x"][:1])
        encoder_input = self.likelihood.encoder_input(x)
        moments, encoder_variables = self.encoder.init_with_output(encoder_key, encoder_input)
        outputs, decoder_variables = self.decoder.init_with_output(decoder_key, jnp.zeros((1, self.latent_dim)))
        checks.check_outputs("the encoder", moments, (1, self.latent_dim), (1, self.latent_dim))
        checks.check_outputs("the decoder", outputs, (*x.shape[:-1], x.shape[-1] * self.likelihood.outputs_per_dim))
        params = {"encoder": _only_params(encoder_variables), "decoder": _only_params(decoder_variables)}
        return {"vae": params}, {}

    def loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Evaluates the objective on one batch."""
        value, metrics = self.objective(*self.posterior(params, key, batch["x"]))
        return value, (model_state, metrics)

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes the importance-weighted bound (2) with K = num_importance_samples."""
        key, mean, log_var, nll_fn = self.posterior(params, key, x)

        def log_weight(sample_key: Key) -> Array:
            z = _sample_posterior(sample_key, mean, log_var, 1)
            return log_importance_weights(z, mean, log_var, nll_fn)[0]

        keys = jax.random.split(key, self.num_importance_samples)
        log_w = jax.lax.map(log_weight, keys, batch_size=self.chunk_size)
        bound = losses.importance_weighted_bound(log_w)
        settings = (("K", self.num_importance_samples), *space_setting(self.likelihood.side, x.shape[1:]))
        return Likelihood(bound, "lower_bound", self.likelihood.measure, settings)

    def elbo(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes the bound (1), averaged over L = num_elbo_samples latents.

        With one key, `elbo` and `log_prob` prepare the data alike.
        """
        key, mean, log_var, nll_fn = self.posterior(params, key, x)

        def one_nll(sample_key: Key) -> Array:
            return nll_fn(_sample_posterior(sample_key, mean, log_var, 1))[0]

        keys = jax.random.split(key, self.num_elbo_samples)
        mean_nll = jnp.mean(jax.lax.map(one_nll, keys, batch_size=self.chunk_size), axis=0)
        bound = losses.elbo(mean_nll, losses.normal_kl_to_standard(mean, log_var))
        settings = (("L", self.num_elbo_samples), *space_setting(self.likelihood.side, x.shape[1:]))
        return Likelihood(bound, "lower_bound", self.likelihood.measure, settings)

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
        """Draws z from the prior, then x from p(x|z): [n, ...] as the data set ships it."""
        refuse_options(label=label, temperature=temperature)
        return self.likelihood.sample(*self._prior_outputs(params, key, n))

    def sample_mean(self, params: Params, model_state: ModelState, key: Key, n: int) -> Array:
        """Means of the distributions p(x|z) that `sample` draws from with the same key: float32 [n, ...]."""
        return self.likelihood.mean(self._prior_outputs(params, key, n)[1])

    def encode(self, params: Params, key: Key, x: Array) -> tuple[Array, Array]:
        """Computes the mean [B, Z] and the log-variance [B, Z] of q(z|x); the key prepares x."""
        return self.posterior(params, key, x)[1:3]

    def decode(self, params: Params, z: Array) -> Array:
        """Computes the mean of p(x|z) for z [B, Z]: float32 [B, ...] on the data set's scale."""
        return self.likelihood.mean(self.decoder_outputs(params, z))

    def posterior(self, params: Params, key: Key, x: Array) -> tuple[Key, Array, Array, NllFn]:
        """Prepares x and encodes it: a fresh key, the mean and log-variance of q(z|x), and nll_fn."""
        prepare_key, latent_key = jax.random.split(key)
        x = self.likelihood.prepare(prepare_key, x)
        moments = self.encoder.apply({"params": params["vae"]["encoder"]}, self.likelihood.encoder_input(x))
        return latent_key, *jax.tree.map(_at_least_float32, moments), partial(self.nll, params, x)

    def nll(self, params: Params, x: Array, z: Array) -> Array:
        """Computes -log p(x|z) [K, B] of prepared x [B, ...] for z [K, B, Z]."""
        outputs = self.decoder_outputs(params, z.reshape(-1, self.latent_dim))  # one flat batch of K * B
        outputs = outputs.reshape(*z.shape[:2], *outputs.shape[1:])
        return jax.vmap(self.likelihood.nll, in_axes=(None, 0))(x, outputs)

    def _prior_outputs(self, params: Params, key: Key, n: int) -> tuple[Key, Array]:
        z_key, x_key = jax.random.split(key)
        return x_key, self.decoder_outputs(params, jax.random.normal(z_key, (n, self.latent_dim)))

    def decoder_outputs(self, params: Params, z: Array) -> Array:
        """Computes the decoder's outputs [B, ...] for z [B, Z]."""
        return _at_least_float32(cast(Array, self.decoder.apply({"params": params["vae"]["decoder"]}, z)))


def _sample_posterior(key: Key, mean: Array, log_var: Array, num_samples: int) -> Array:
    """Draws z [K, B, Z] from q(z|x), each with its own noise."""
    eps = jax.random.normal(key, (num_samples, *mean.shape), mean.dtype)
    return losses.reparameterize(mean, log_var, eps)


def log_importance_weights(z: Array, mean: Array, log_var: Array, nll_fn: NllFn) -> Array:
    """Computes log p(x|z) p(z) / q(z|x) [K, B] for z [K, B, Z]."""
    log_q_z_given_x = losses.encoder_log_prob(z, mean, log_var)
    return losses.log_importance_weights(-nll_fn(z), losses.prior_log_prob(z), log_q_z_given_x)


def _at_least_float32(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _only_params(variables: PyTree) -> PyTree:
    return variables.get("params", {})
