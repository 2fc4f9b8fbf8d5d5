"""Trains a VAE of your own networks on your own images, in one call.

python examples/own_vae.py        # writes runs/own_vae; the same command resumes it
"""

import flax.linen as nn
import numpy as np
import optax

import gm_jax
from gm_jax.models import decoder_likelihoods, vae


class Encoder(nn.Module):
    """Any network: images [B, ...] to the mean and the log-variance of q(z|x), [B, Z] each."""

    @nn.compact
    def __call__(self, x):
        h = nn.silu(nn.Dense(64)(x.reshape(len(x), -1)))
        return nn.Dense(8)(h), nn.Dense(8)(h)


class Decoder(nn.Module):
    """Any network: latents [B, Z] to two outputs for each pixel, [B, H, W, 2]."""

    @nn.compact
    def __call__(self, z):
        h = nn.silu(nn.Dense(64)(z))
        return nn.Dense(14 * 14 * 2)(h).reshape(-1, 14, 14, 2)


# Your images: uint8 [N, H, W] or [N, H, W, C]. Here: discs of random size and place.
rng = np.random.default_rng(0)
row, column = np.mgrid[:14, :14]
centre, radius = rng.uniform(4, 10, (2, 500, 1, 1)), rng.uniform(2, 5, (500, 1, 1))
images = np.where((row - centre[0]) ** 2 + (column - centre[1]) ** 2 < radius**2, 220, 30).astype(np.uint8)

family = vae.VAE(
    encoder=Encoder(),
    decoder=Decoder(),
    likelihood=decoder_likelihoods.discretized_logistic(levels=256),
    latent_dim=8,
    objective=vae.elbo_objective(),
    num_importance_samples=10,
)
run = gm_jax.train(family, images, "runs/own_vae", optimizer=optax.adam(1e-3), train={"steps": 200}, evaluate=False)
bound = run.log_prob(run.data["test"]["x"])
bits = -bound.log_prob.mean() / (14 * 14 * np.log(2))
print(f"test -log p <= {bits:.2f} bits/dim ({bound.measure}, {dict(bound.settings)}); pictures are in {run.folder}")
