"""The variational autoencoder (Kingma & Welling, ICLR 2014, arXiv:1312.6114): the whole algorithm, top to bottom.

Latents z ~ N(0, I), a decoder p(x|z) and an encoder q(z|x) = N(mean(x), exp(log_var(x))), diagonal. Two lower bounds
on log p(x), in nats:

    L(x)   = E_q[log p(x|z)] - KL(q(z|x) || N(0, I))                                              (1)
    L_K(x) = E log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x),    z_1 ... z_K ~ q(z|x) independent       (2)

`elbo_objective` trains (1), its KL weighted by beta (Higgins et al., ICLR 2017); `iwae_objective` and the cheaper
`resampled_iwae_objective` train (2) (Burda, Grosse & Salakhutdinov, ICLR 2016, arXiv:1509.00519). `log_prob` is (2)
whatever was trained.

What p(x|z) is, an `observations.ObservationModel` says. Data come and samples go as the data set ships them (uint8
levels, or float32 points); the way there and back is the observation model's.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.losses import combine
from gm_jax.losses import vae as losses
from gm_jax.models.decoder_likelihoods import ObservationModel
from gm_jax.types import Array, Batch, Key, Likelihood, LogProbFn, Metrics, Model, ModelState, Objective, Params, PyTree

NllFn = Callable[[Array], Array]  # z [K, B, Z] -> -log p(x|z) [K, B] of the batch at hand
# (key, mean [B, Z], log_var [B, Z], nll_fn) -> (scalar to minimise, metrics)
ObjectiveFn = Callable[[Key, Array, Array, NllFn], tuple[Array, Metrics]]


def elbo_objective(*, beta: float = 1.0, num_samples: int = 1) -> ObjectiveFn:
    """The ELBO (1), its KL in closed form and weighted by beta.

    Metrics: nll, kl and elbo, which beta does not enter: a weighted loss is no likelihood.

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
    """The importance-weighted bound (2) of K = num_samples independent latents for each example.

    Metrics: iw_bound, and elbo, the mean of the same log-weights.

    Args:
        num_samples: K.
    """

    def objective(key: Key, mean: Array, log_var: Array, nll_fn: NllFn) -> tuple[Array, Metrics]:
        z = _sample_posterior(key, mean, log_var, num_samples)
        log_w = _log_importance_weights(z, mean, log_var, nll_fn)
        iw_bound = jnp.mean(losses.importance_weighted_bound(log_w))
        return -iw_bound, {"iw_bound": iw_bound, "elbo": jnp.mean(log_w)}

    return objective


def resampled_iwae_objective(*, num_samples: int, num_resampled: int = 1) -> ObjectiveFn:
    """The bound (2), its gradient estimated from a few of the K latents drawn again by their weights.

    A step costs K passes forwards and `num_resampled` backwards, where `iwae_objective` costs K of both.

    Metrics: iw_bound, and elbo, the mean of the same log-weights.

    Args:
        num_samples: K.
        num_resampled: latents drawn again for each example.
    """

    def objective(key: Key, mean: Array, log_var: Array, nll_fn: NllFn) -> tuple[Array, Metrics]:
        noise_key, choice_key = jax.random.split(key)
        eps = jax.random.normal(noise_key, (num_samples, *mean.shape), mean.dtype)

        def log_weights(eps: Array) -> Array:
            return _log_importance_weights(losses.reparameterize(mean, log_var, eps), mean, log_var, nll_fn)

        log_w = jax.lax.stop_gradient(log_weights(eps))
        chosen = jax.random.categorical(choice_key, log_w, axis=0, shape=(num_resampled, mean.shape[0]))
        resampled = log_weights(jnp.take_along_axis(eps, chosen[..., None], axis=0))
        iw_bound = jnp.mean(losses.resampled_importance_weighted_bound(log_w, resampled))
        return -iw_bound, {"iw_bound": iw_bound, "elbo": jnp.mean(log_w)}

    return objective


class VAE(NamedTuple):
    """The family's record, and what a latent space adds to it.

    Attributes:
        model: init, the one objective, sample, and log_prob: the bound (2).
        elbo: (params, model_state, key, x) -> Likelihood: the bound (1), averaged over L latents. Data that are
            prepared at random are the same as in log_prob with the same key.
        sample_mean: (params, model_state, key, n) -> means of the very distributions that `model.sample` draws from
            with the same key, float32 [n, ...] on the data set's scale.
        encode: (params, key, x) -> (mean [B, Z], log_var [B, Z]) of q(z|x).
        decode: (params, z [B, Z]) -> mean of p(x|z), float32 [B, ...] on the data set's scale.
    """

    model: Model
    elbo: LogProbFn
    sample_mean: Callable[[Params, ModelState, Key, int], Array]
    encode: Callable[[Params, Key, Array], tuple[Array, Array]]
    decode: Callable[[Params, Array], Array]


def vae(
    encoder: nn.Module,
    decoder: nn.Module,
    observation: ObservationModel,
    *,
    latent_dim: int,
    objective: ObjectiveFn,
    num_importance_samples: int = 500,
    num_elbo_samples: int = 1,
    chunk_size: int = 50,
) -> VAE:
    """A variational autoencoder of any two networks that keep the contract.

    Args:
        encoder: [B, ...] floats -> (mean [B, Z], log_var [B, Z]).
        decoder: z [B, Z] -> outputs [B, ..., C * observation.outputs_per_dim].
        observation: the likelihood p(x|z).
        latent_dim: Z.
        objective: what training minimises, `elbo_objective(...)` or `iwae_objective(...)`.
        num_importance_samples: K of `log_prob`.
        num_elbo_samples: L of `elbo`.
        chunk_size: evaluation decodes this many of the K latents of a batch at a time.
    """

    def encode_prepared(params: Params, x: Array) -> tuple[Array, Array]:
        moments = encoder.apply({"params": params["vae"]["encoder"]}, observation.encoder_input(x))
        return jax.tree.map(_at_least_float32, moments)

    def decode_outputs(params: Params, z: Array) -> Array:
        return _at_least_float32(decoder.apply({"params": params["vae"]["decoder"]}, z))

    def nll(params: Params, x: Array, z: Array) -> Array:
        """-log p(x|z) [K, B] of z [K, B, Z]; the decoder sees one flat batch of K * B."""
        outputs = decode_outputs(params, z.reshape(-1, latent_dim))
        return jax.vmap(observation.nll, in_axes=(None, 0))(x, outputs.reshape(*z.shape[:2], *outputs.shape[1:]))

    def posterior(params: Params, key: Key, raw: Array) -> tuple[Key, Array, Array, NllFn]:
        """A fresh key, q's mean and log-variance, and nll_fn: z [K, B, Z] -> [K, B]."""
        prepare_key, latent_key = jax.random.split(key)
        x = observation.prepare(prepare_key, raw)
        return latent_key, *encode_prepared(params, x), partial(nll, params, x)

    def init(key: Key, batch: Batch) -> tuple[Params, ModelState]:
        encoder_key, decoder_key, prepare_key = jax.random.split(key, 3)
        x = observation.prepare(prepare_key, batch["x"][:1])
        (mean, log_var), encoder_variables = encoder.init_with_output(encoder_key, observation.encoder_input(x))
        outputs, decoder_variables = decoder.init_with_output(decoder_key, jnp.zeros((1, latent_dim)))
        chex.assert_shape((mean, log_var), (1, latent_dim))
        chex.assert_shape(outputs, (*x.shape[:-1], x.shape[-1] * observation.outputs_per_dim))
        params = {"encoder": _only_params(encoder_variables), "decoder": _only_params(decoder_variables)}
        return {"vae": params}, {}

    def loss(params: Params, model_state: ModelState, key: Key, batch: Batch):
        value, metrics = objective(*posterior(params, key, batch["x"]))
        return value, (model_state, metrics)

    def log_prob(params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        key, mean, log_var, nll_fn = posterior(params, key, x)

        def log_weight(sample_key: Key) -> Array:
            z = _sample_posterior(sample_key, mean, log_var, 1)
            return _log_importance_weights(z, mean, log_var, nll_fn)[0]

        keys = jax.random.split(key, num_importance_samples)
        log_w = jax.lax.map(log_weight, keys, batch_size=chunk_size)
        settings = (("K", num_importance_samples),)
        return Likelihood(
            losses.importance_weighted_bound(log_w), kind="lower_bound", measure=observation.measure, settings=settings
        )

    def elbo(params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        key, mean, log_var, nll_fn = posterior(params, key, x)

        def one_nll(sample_key: Key) -> Array:
            return nll_fn(_sample_posterior(sample_key, mean, log_var, 1))[0]

        keys = jax.random.split(key, num_elbo_samples)
        mean_nll = jnp.mean(jax.lax.map(one_nll, keys, batch_size=chunk_size), axis=0)
        bound = losses.elbo(mean_nll, losses.normal_kl_to_standard(mean, log_var))
        settings = (("L", num_elbo_samples),)
        return Likelihood(bound, kind="lower_bound", measure=observation.measure, settings=settings)

    def prior_outputs(params: Params, key: Key, n: int) -> tuple[Key, Array]:
        z_key, x_key = jax.random.split(key)
        return x_key, decode_outputs(params, jax.random.normal(z_key, (n, latent_dim)))

    def sample(
        params: Params, model_state: ModelState, key: Key, n: int, *, label: Array | None = None, temperature=None
    ) -> Array:
        refuse_options(label=label, temperature=temperature)
        return observation.sample(*prior_outputs(params, key, n))

    def sample_mean(params: Params, model_state: ModelState, key: Key, n: int) -> Array:
        return observation.mean(prior_outputs(params, key, n)[1])

    def encode(params: Params, key: Key, x: Array) -> tuple[Array, Array]:
        return posterior(params, key, x)[1:3]

    def decode(params: Params, z: Array) -> Array:
        return observation.mean(decode_outputs(params, z))

    model = Model(init, (Objective("vae", loss),), sample, log_prob)
    return VAE(model, elbo, sample_mean, encode, decode)


def _sample_posterior(key: Key, mean: Array, log_var: Array, num_samples: int) -> Array:
    """Draws z [K, B, Z] of q(z|x), each from noise of its own."""
    eps = jax.random.normal(key, (num_samples, *mean.shape), mean.dtype)
    return losses.reparameterize(mean, log_var, eps)


def _log_importance_weights(z: Array, mean: Array, log_var: Array, nll_fn: NllFn) -> Array:
    """Log p(x|z) p(z) / q(z|x), [K, B], of z [K, B, Z]."""
    log_q_z_given_x = losses.encoder_log_prob(z, mean, log_var)
    return losses.log_importance_weights(-nll_fn(z), losses.prior_log_prob(z), log_q_z_given_x)


def _at_least_float32(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _only_params(variables: PyTree) -> PyTree:
    return variables.get("params", {})
