"""The first stage of latent diffusion: a VAE, whose latents are a vector or a small image."""

import math
from typing import Any, NamedTuple

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.models import vae
from gm_jax.networks import autoencoder
from gm_jax.recipes import image_shapes, likelihoods
from gm_jax.recipes.configs.latent_diffusion import AutoencoderConfig, SpatialAutoencoderConfig
from gm_jax.recipes.vae import encoder_and_decoder


class FirstStage(NamedTuple):
    """A VAE and its latents.

    Attributes:
        autoencoder: the VAE.
        latents: the data as the second stage sees them: points, also if their shape is that of an image.
        facts: what results must state of the VAE.
    """

    autoencoder: vae.VAE
    latents: Spec
    facts: dict[str, Any]


def make_first_stage(
    config: AutoencoderConfig | SpatialAutoencoderConfig, spec: Spec, *, elbo_samples: int
) -> FirstStage:
    """Returns the first stage that a configuration describes.

    Raises:
        UserError: the networks or the decoder do not fit the data.
    """
    if isinstance(config, SpatialAutoencoderConfig):
        shape: tuple[int, ...] = latent_shape(config, spec)
        family, facts = spatial_autoencoder(config, spec, elbo_samples=elbo_samples), {}
    else:
        shape = (config.latent_dim,)
        family, facts = _flat_autoencoder(config, spec, elbo_samples=elbo_samples)
    return FirstStage(family, spec._replace(shape=shape, levels=None), facts)


def spatial_autoencoder(config: SpatialAutoencoderConfig, spec: Spec, *, elbo_samples: int) -> vae.VAE:
    """Returns a convolutional VAE whose latents are a small image.

    Raises:
        UserError: the data are not images, their sides cannot be halved so often, or p(x|z) is narrower than a level.
    """
    latent_dim = math.prod(latent_shape(config, spec))
    try:
        likelihood, _ = likelihoods.decoder_likelihood(spec, decoder="normal", log_var=config.log_var)
    except UserError as error:
        raise UserError(f"--autoencoder.log-var {config.log_var:g} does not fit {spec.name}: {error}") from None
    settings = {
        "blocks": config.blocks,
        "groups": config.groups,
        "attention": config.attention,
        "patch": config.patch,
        "dtype": config.dtype,
        "remat": config.remat,
    }
    outputs = likelihood.outputs_per_dim
    return vae.VAE(
        encoder=autoencoder.SpatialEncoder(config.features, config.channels, **settings),
        decoder=autoencoder.SpatialDecoder(config.features, spec.shape, config.channels, outputs, **settings),
        likelihood=likelihood,
        latent_dim=latent_dim,
        objective=vae.elbo_objective(beta=config.beta),
        num_elbo_samples=elbo_samples,
    )


def latent_shape(config: SpatialAutoencoderConfig, spec: Spec) -> tuple[int, int, int]:
    """Returns the shape of the latents of one image.

    Raises:
        UserError: the data are not images, or their sides cannot be halved so often.
    """
    image, levels = image_shapes.image_shape(spec), len(config.features)
    return autoencoder.latent_shape(image, levels=levels, channels=config.channels, patch=config.patch)


def _flat_autoencoder(config: AutoencoderConfig, spec: Spec, *, elbo_samples: int) -> tuple[vae.VAE, dict[str, Any]]:
    """Returns a VAE whose latents are a vector, and the facts that its results must carry."""
    decoder = config.decoder or ("bernoulli" if spec.levels == 2 else "normal")
    log_var = config.log_var if decoder == "normal" else None
    likelihood, facts = likelihoods.decoder_likelihood(spec, decoder=decoder, log_var=log_var)
    encoder, decoder_network = encoder_and_decoder(
        spec, likelihood.outputs_per_dim, network=config.network, hidden=config.hidden, latent_dim=config.latent_dim
    )
    family = vae.VAE(
        encoder=encoder,
        decoder=decoder_network,
        likelihood=likelihood,
        latent_dim=config.latent_dim,
        objective=vae.elbo_objective(beta=config.beta),
        num_elbo_samples=elbo_samples,
    )
    return family, facts
