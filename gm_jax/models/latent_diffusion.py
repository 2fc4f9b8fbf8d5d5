"""Latent diffusion (Rombach et al., CVPR 2022, arXiv:2112.10752): a diffusion model of a VAE's latents.

Two players train in two stages of one run. In the first S steps the VAE trains; then it stays fixed, and the diffusion
model trains on z ~ q(z|x), scaled by a constant c to unit variance,

    c = 1 / sqrt(E z^2 - (E z)^2)                                                                         (1)

over the training data and all entries of z. The moments in (1) are averages over about the last hundred steps of the
VAE, when its learning rate should be near 0; they stay fixed with it and are stored with the parameters.

The latents of the VAE are flat, [B, Z]; the diffusion model may see them as an image, [B, H, W, C] with H W C = Z, and
may be conditioned on labels or captions, as `models.diffusion` describes. The bound belongs to p(x).

A sample is z = z' / c for a sample z' of the diffusion model, decoded by the mean of p(x|z). The whole model is a VAE
with a learned prior, so `log_prob` is its bound: the diffusion model's bound on log p(z) inside the VAE's bound,

    log p(x) >= E_q[log p(x|z)] + E_q[log p(c z) + Z log c] + H(q(z|x))                                   (2)

with Z the dimensions of z. The diffusion model's decoder p(z_0 | z_1) is a density, because latents have no levels.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from gm_jax.errors import UserError, refuse_options
from gm_jax.losses import vae as losses
from gm_jax.models import image_editing
from gm_jax.models.diffusion import Diffusion
from gm_jax.models.vae import VAE
from gm_jax.ops.levels import nearest_level
from gm_jax.types import Array, Batch, Key, Likelihood, Mean, Metrics, Model, ModelState, Objective, Params, steps

_LARGEST_WEIGHT_OF_THE_PAST = 0.99  # in the moving averages of the moments


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LatentDiffusion:
    """A diffusion model of the latents of a VAE.

    Attributes:
        autoencoder: its bound should be a mean over one latent or a few.
        prior: a diffusion model of points of shape (Z,), or of another shape with Z numbers.
        levels: of the data; None for points.
        vae_steps: S.
    """

    autoencoder: VAE
    prior: Diffusion
    levels: int | None
    vae_steps: int

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and samplers see."""
        objectives = (
            Objective("vae", self.vae_loss, steps(0, self.vae_steps)),
            Objective("diffusion", self.prior_loss, steps(self.vae_steps)),
        )
        return Model(self.init, objectives, self.sample, self.log_prob, {"latents": Mean()})

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises both players; the moments of the latents are empty."""
        if math.prod(self.prior.shape) != self.autoencoder.latent_dim:
            shapes = f"{list(self.prior.shape)}, and those of the autoencoder [{self.autoencoder.latent_dim}]"
            raise UserError(f"the latents of the diffusion model have shape {shapes}: give both the same.")
        vae_key, prior_key = jax.random.split(key)
        params = self.autoencoder.model.init(vae_key, batch)[0]
        params |= self.prior.init(prior_key, {"x": jnp.zeros((1, *self.prior.shape))})[0]
        zero = jnp.zeros(())
        return params, {"latents": {"mean": zero, "mean_square": zero, "count": zero}}

    def vae_loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Evaluates the VAE's own loss, and updates the moments of the latents."""
        (objective,) = self.autoencoder.model.objectives
        value, (_, metrics) = objective.loss(params, {}, key, batch)
        # The same key gives the same preparation of x, and one pass through the encoder serves both.
        q = jax.lax.stop_gradient(self.autoencoder.encode(params, key, batch["x"]))
        return value, ({"latents": _updated_moments(model_state["latents"], *q)}, metrics)

    def prior_loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Evaluates the diffusion model's loss on scaled latents of the batch."""
        latent_key, key = jax.random.split(key)
        z = jax.lax.stop_gradient(self.latents(params, model_state, latent_key, batch["x"]))
        value, (_, metrics) = self.prior.loss(params, {}, key, {**batch, "x": self._as_image(z)})
        return value, (model_state, {**metrics, "scale": self.scale(model_state)})

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes the bound (2); its settings are those of both bounds."""
        vae_key, latent_key, key = jax.random.split(key, 3)
        # E_q log p(x|z) is the VAE's bound without its prior term; one key gives both the same preparation of x.
        mean, log_var = self.autoencoder.encode(params, vae_key, x)
        elbo = self.autoencoder.elbo(params, {}, vae_key, x)
        reconstruction = elbo.log_prob + losses.normal_kl_to_standard(mean, log_var)
        entropy = -jnp.sum(_negative_entropy(log_var), axis=-1)
        z = self._draw_latents(model_state, latent_key, mean, log_var)
        prior = self.prior.log_prob(params, {}, key, self._as_image(z))
        log_p_z = prior.log_prob + mean.shape[-1] * jnp.log(self.scale(model_state))
        # The bound is of x: the space of the latents, which the prior states, is not its space.
        settings = (*elbo.settings, *(fact for fact in prior.settings if fact[0] != "space"))
        return Likelihood(reconstruction + log_p_z + entropy, "lower_bound", elbo.measure, settings)

    def autoencoder_elbo(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes the bound of the autoencoder with its own prior, N(0, I), instead of the diffusion model."""
        return self.autoencoder.elbo(params, {}, key, x)

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
        """Draws n samples: decoded means, rounded to levels if the data have them; labels are the prior's."""
        refuse_options(temperature=temperature)
        return self.decode(params, model_state, self.prior.sample(params, {}, key, n, label=label))

    def decode(self, params: Params, model_state: ModelState, z: Array) -> Array:
        """Decodes scaled latents [B, ...] of the prior: means of p(x|z), rounded to levels if the data have them."""
        x = self.autoencoder.decode(params, z.reshape(len(z), -1) / self.scale(model_state))
        return x if self.levels is None else nearest_level(x, levels=self.levels)

    def edit(
        self,
        params: Params,
        model_state: ModelState,
        key: Key,
        x: Array,
        *,
        strength: float,
        mask: Array | None = None,
        label: Array | None = None,
    ) -> Array:
        """Draws an image near each x [B, ...], see `image_editing`.

        Args:
            params: of both players.
            model_state: with the moments of the latents.
            key: with strength 1 and no mask, the result is that of `sample` with this key.
            x: [B, H, W, C] as the data set ships them.
            strength: 0 gives the decoded latents of x, 1 new samples.
            mask: [H, W] bool, True where the image is drawn again; None for everywhere. A latent is drawn if one of its
                pixels is, and pixels that are not drawn stay those of x.
            label: [B] labels or [B, L] captions; None for p(x).
        Raises:
            UserError: the mask or the strength does not fit.
        """
        prepare_key, _ = jax.random.split(key)
        z = self._as_image(self.scale(model_state) * self.autoencoder.encode(params, prepare_key, x)[0])
        latents = None if mask is None else image_editing.mask_of_latents(mask, x.shape[1:], self.prior.shape)
        drawn = image_editing.edit(self.prior, params, {}, key, z, strength=strength, mask=latents, label=label)
        edited = self.decode(params, model_state, drawn)
        return edited if mask is None else jnp.where(mask[..., None], edited, x)

    def scale(self, model_state: ModelState) -> Array:
        """Computes the constant c of (1); 1 before the first latents."""
        moments = model_state["latents"]
        # This difference loses digits only if the latents' mean is far from 0, which a KL term of any weight opposes.
        variance = moments["mean_square"] - jnp.square(moments["mean"])
        return jnp.where(moments["count"] > 0, jax.lax.rsqrt(jnp.maximum(variance, 1e-12)), 1.0)

    def latents(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        """Draws c z [B, Z] for z ~ q(z|x): the data of the diffusion model."""
        prepare_key, noise_key = jax.random.split(key)
        return self._draw_latents(model_state, noise_key, *self.autoencoder.encode(params, prepare_key, x))

    def _as_image(self, z: Array) -> Array:
        return z.reshape(len(z), *self.prior.shape)

    def _draw_latents(self, model_state: ModelState, key: Key, mean: Array, log_var: Array) -> Array:
        eps = jax.random.normal(key, mean.shape, mean.dtype)
        return self.scale(model_state) * losses.reparameterize(mean, log_var, eps)


def _updated_moments(moments: dict[str, Array], mean: Array, log_var: Array) -> dict[str, Array]:
    """The moments of z over all entries, one batch later: a mean at first, then an exponential average."""
    count = moments["count"] + 1.0
    weight = jnp.maximum(1.0 / count, 1.0 - _LARGEST_WEIGHT_OF_THE_PAST)
    now = {"mean": jnp.mean(mean), "mean_square": jnp.mean(jnp.square(mean) + jnp.exp(log_var))}
    return {name: moments[name] + weight * (value - moments[name]) for name, value in now.items()} | {"count": count}


def _negative_entropy(log_var: Array) -> Array:
    return -0.5 * (1.0 + jnp.log(2.0 * jnp.pi) + log_var)
