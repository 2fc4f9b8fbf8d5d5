"""Latent diffusion (Rombach et al., CVPR 2022, arXiv:2112.10752): a diffusion model of a VAE's latents.

Two players of two stages, in the steps of one run. First the VAE trains; from step S on it rests, and the diffusion
model trains on z ~ q(z|x), scaled by a constant c to unit variance,

    c = 1 / sqrt(E z^2 - (E z)^2)                                                                         (1)

over the training data and all entries of z. The moments in (1) are averages over the VAE's last hundred steps or so,
where its learning rate should be near 0; they rest with it, and are stored with the parameters.

A sample is z = z' / c of a sample z' of the diffusion model, decoded by the mean of p(x|z). The whole is a VAE with a
learned prior, so `log_prob` is its bound: that of the diffusion model on log p(z) in that of the VAE on log p(x),

    log p(x) >= E_q[log p(x|z)] + E_q[log p(c z) + Z log c] + H(q(z|x))                                   (2)

with Z the dimensions of z. Its decoder p(z_0 | z_1) is a density: latents have no levels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.losses import vae as losses
from gm_jax.models.diffusion import Diffusion
from gm_jax.models.vae import VAE
from gm_jax.types import Array, Batch, Key, Likelihood, Mean, Model, ModelState, Objective, Params, steps

_MOST_WEIGHT_ON_THE_PAST = 0.99  # of the moments' averages


class LatentDiffusion(NamedTuple):
    """The family's record, and what its two parts add to it.

    Attributes:
        model: init, the objectives "vae" and "diffusion", sample, and log_prob: the bound (2).
        scale: model_state -> c.
        latents: (params, model_state, key, x) -> [B, Z] c z of z ~ q(z|x): what is diffused.
    """

    model: Model
    scale: Callable[[ModelState], Array]
    latents: Callable[[Params, ModelState, Key, Array], Array]


def latent_diffusion(autoencoder: VAE, prior: Diffusion, *, levels: int | None, vae_steps: int) -> LatentDiffusion:
    """A diffusion model of the latents of a VAE.

    Args:
        autoencoder: as `vae.vae` makes it; its bound should be a mean over one latent or a few.
        prior: as `diffusion.diffusion` makes it, of points of shape (Z,) and without labels.
        levels: of the data; None for points.
        vae_steps: S.
    """
    (vae_objective,), (prior_objective,) = autoencoder.model.objectives, prior.model.objectives

    def init(key: Key, batch: Batch) -> tuple[Params, ModelState]:
        vae_key, prior_key = jax.random.split(key)
        params = autoencoder.model.init(vae_key, batch)[0]
        params |= prior.model.init(prior_key, {"x": jnp.zeros((1, *prior.shape))})[0]
        zero = jnp.zeros(())
        return params, {"latents": {"mean": zero, "mean_square": zero, "count": zero}}

    def scale(model_state: ModelState) -> Array:
        moments = model_state["latents"]
        variance = moments["mean_square"] - jnp.square(moments["mean"])
        return jnp.where(moments["count"] > 0, jax.lax.rsqrt(jnp.maximum(variance, 1e-12)), 1.0)

    def latents(params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        prepare_key, noise_key = jax.random.split(key)
        return drawn(model_state, noise_key, *autoencoder.encode(params, prepare_key, x))

    def drawn(model_state: ModelState, key: Key, mean: Array, log_var: Array) -> Array:
        eps = jax.random.normal(key, mean.shape, mean.dtype)
        return scale(model_state) * losses.reparameterize(mean, log_var, eps)

    def vae_loss(params: Params, model_state: ModelState, key: Key, batch: Batch):
        value, (_, metrics) = vae_objective.loss(params, {}, key, batch)
        # The same key: the same preparation of x, and one pass through the encoder for both.
        moments = jax.lax.stop_gradient(autoencoder.encode(params, key, batch["x"]))
        return value, ({"latents": _averaged(model_state["latents"], *moments)}, metrics)

    def prior_loss(params: Params, model_state: ModelState, key: Key, batch: Batch):
        latent_key, key = jax.random.split(key)
        z = jax.lax.stop_gradient(latents(params, model_state, latent_key, batch["x"]))
        value, (_, metrics) = prior_objective.loss(params, {}, key, {"x": z})
        return value, (model_state, {**metrics, "scale": scale(model_state)})

    def log_prob(params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        vae_key, latent_key, key = jax.random.split(key, 3)
        # E_q log p(x|z) is what the VAE's own bound is without its own prior. One key, and so one preparation of x.
        mean, log_var = autoencoder.encode(params, vae_key, x)
        elbo = autoencoder.elbo(params, {}, vae_key, x)
        reconstruction = elbo.log_prob + losses.normal_kl_to_standard(mean, log_var)
        entropy = -jnp.sum(_negative_entropy(log_var), axis=-1)
        of_latents = prior.model.log_prob(params, {}, key, drawn(model_state, latent_key, mean, log_var))
        log_p_z = of_latents.log_prob + mean.shape[-1] * jnp.log(scale(model_state))
        settings = (*elbo.settings, *of_latents.settings)
        return Likelihood(reconstruction + log_p_z + entropy, "lower_bound", elbo.measure, settings)

    def sample(
        params: Params, model_state: ModelState, key: Key, n: int, *, label: Array | None = None, temperature=None
    ) -> Array:
        refuse_options(label=label, temperature=temperature)
        x = autoencoder.decode(params, prior.model.sample(params, {}, key, n) / scale(model_state))
        return x if levels is None else jnp.clip(jnp.round(x), 0, levels - 1).astype(jnp.uint8)

    objectives = (
        Objective("vae", vae_loss, steps(0, vae_steps)),
        Objective("diffusion", prior_loss, steps(vae_steps)),
    )
    return LatentDiffusion(Model(init, objectives, sample, log_prob, {"latents": Mean()}), scale, latents)


def _averaged(moments: dict[str, Array], mean: Array, log_var: Array) -> dict[str, Array]:
    """The moments of z over all entries, a batch of q's later: a mean at first, then an average that forgets."""
    count = moments["count"] + 1.0
    weight = jnp.maximum(1.0 / count, 1.0 - _MOST_WEIGHT_ON_THE_PAST)
    now = {"mean": jnp.mean(mean), "mean_square": jnp.mean(jnp.square(mean) + jnp.exp(log_var))}
    return {name: moments[name] + weight * (value - moments[name]) for name, value in now.items()} | {"count": count}


def _negative_entropy(log_var: Array) -> Array:
    return -0.5 * (1.0 + jnp.log(2.0 * jnp.pi) + log_var)
