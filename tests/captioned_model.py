"""A tiny latent diffusion of captioned images, with random parameters: no training is needed to see what reads what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models import decoder_likelihoods, diffusion, diffusion_space, latent_diffusion, vae
from gm_jax.networks.autoencoder import SpatialDecoder, SpatialEncoder
from gm_jax.networks.dit import DiT
from gm_jax.networks.text_encoder import TextEncoder
from gm_jax.ops import diffusion_process
from gm_jax.samplers.ddim import ddim

SCHEDULE = diffusion_process.linear_schedule(40, beta_min=0.5, beta_max=15.0)
IMAGES = jnp.asarray(np.random.default_rng(2).integers(0, 256, (3, 8, 8, 3)), jnp.uint8)
CAPTIONS = jnp.array([[3, 4, 0], [5, 0, 0], [2, 2, 1]])
STATE = {"latents": {"mean": jnp.float32(0.1), "mean_square": jnp.float32(2.0), "count": jnp.float32(1)}}


@functools.cache
def captioned() -> tuple[latent_diffusion.LatentDiffusion, dict]:
    """Returns the model, whose latents are 4 x 4 x 2, and its parameters."""
    autoencoder = vae.VAE(
        encoder=SpatialEncoder((4, 8), 2, groups=2),
        decoder=SpatialDecoder((4, 8), (8, 8, 3), 2, groups=2),
        likelihood=decoder_likelihoods.normal(levels=256, log_var=-4.0),
        latent_dim=4 * 4 * 2,
        objective=vae.elbo_objective(),
    )
    prior = diffusion.Diffusion(
        network=DiT(8, layers=1, heads=2, text=TextEncoder((3,), 6, 8, features=8, heads=2, layers=1)),
        space=diffusion_space.points(),
        schedule=SCHEDULE,
        shape=(4, 4, 2),
        parameterization=diffusion.v_prediction(),
        sampler=ddim(SCHEDULE, 6),
        variance_fn=diffusion_process.transition_variance,
        num_tokens=3,
    )
    model = latent_diffusion.LatentDiffusion(autoencoder=autoencoder, prior=prior, levels=256, vae_steps=3)
    shapes, _ = jax.eval_shape(model.init, jax.random.key(0), {"x": IMAGES})
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shapes)
    return model, params
