"""Recipes of variational autoencoders."""

import dataclasses
from typing import Any

import flax.linen as nn

from gm_jax.data.sources import Spec
from gm_jax.models import conditional_vae, vae
from gm_jax.networks import convnet, mlp
from gm_jax.networks.class_conditional import LabelledInput
from gm_jax.plotting import class_conditional
from gm_jax.plotting import vae as plotting
from gm_jax.recipes import labels, likelihoods
from gm_jax.recipes.configs.vae import AnyVAEConfig, IWAEConfig, VAEConfig
from gm_jax.recipes.experiment import Experiment, LogProbEvaluation
from gm_jax.recipes.optimizers import make_optimizer

_WIDTHS = {"mlp": (500, 500), "conv": (32, 64)}
_NETWORKS = {"mlp": (mlp.MLPEncoder, mlp.MLPDecoder), "conv": (convnet.ConvEncoder, convnet.ConvDecoder)}


def build_vae(config: VAEConfig, spec: Spec) -> Experiment:
    """Builds a VAE that is trained on the beta-weighted ELBO."""
    return _vae_experiment(config, spec, vae.elbo_objective(beta=config.beta))


def build_iwae(config: IWAEConfig, spec: Spec) -> Experiment:
    """Builds a VAE that is trained on the importance-weighted bound."""
    if config.num_resampled is None:
        objective = vae.iwae_objective(num_samples=config.num_samples)
    else:
        objective = vae.resampled_iwae_objective(num_samples=config.num_samples, num_resampled=config.num_resampled)
    return _vae_experiment(config, spec, objective)


def _vae_experiment(config: AnyVAEConfig, spec: Spec, objective: vae.ObjectiveFn) -> Experiment:
    likelihood, facts = likelihoods.decoder_likelihood(
        spec, decoder=config.decoder, binarization=config.binarization, log_var=config.log_var
    )
    encoder, decoder = encoder_and_decoder(
        spec,
        likelihood.outputs_per_dim,
        network=config.network,
        hidden=config.hidden,
        activation=config.activation,
        latent_dim=config.latent_dim,
        dtype=config.dtype,
    )
    family = vae.VAE(
        encoder=encoder,
        decoder=decoder,
        likelihood=likelihood,
        latent_dim=config.latent_dim,
        objective=objective,
        num_importance_samples=config.importance_samples,
        num_elbo_samples=10,
    )
    if config.conditional:
        return _conditional_experiment(config, spec, family, facts)
    return Experiment(
        family.model,
        family=family,
        optimizers={"vae": make_optimizer(config.optimizer, num_steps=config.train.steps)},
        validation=dataclasses.replace(family, num_importance_samples=config.validation_samples).log_prob,
        evaluations=(LogProbEvaluation("negative_elbo", family.elbo),),
        pictures=plotting.grids(family, spec.shape),
        sample_mean=family.sample_mean,
        settings=facts,
        observation=likelihoods.observation(likelihood, spec),
    )


def _conditional_experiment(config: AnyVAEConfig, spec: Spec, given: vae.VAE, facts: dict[str, Any]) -> Experiment:
    """Puts a VAE of p(x|y) together. The ELBO is not reported, because it does not bound the sum over the classes."""
    num_classes = labels.num_classes(spec)

    def family_of(num_samples: int) -> conditional_vae.ConditionalVAE:
        labelled = dataclasses.replace(
            given,
            encoder=LabelledInput(given.encoder, num_classes, flat=config.network == "mlp"),
            decoder=LabelledInput(given.decoder, num_classes),
            num_importance_samples=num_samples,
        )
        return conditional_vae.ConditionalVAE(vae=labelled, num_classes=num_classes)

    family = family_of(config.importance_samples)
    return Experiment(
        family.model,
        family=family,
        optimizers={"vae": make_optimizer(config.optimizer, num_steps=config.train.steps)},
        validation=family_of(config.validation_samples).log_prob,
        pictures=class_conditional.grids_of_vae(family, spec.shape),
        sample_mean=family.sample_mean,
        settings=facts,
        observation=likelihoods.observation(given.likelihood, spec),
        uses_labels=True,
    )


def encoder_and_decoder(
    spec: Spec,
    outputs_per_dim: int,
    *,
    network: str,
    hidden: tuple[int, ...] | None,
    latent_dim: int,
    activation: str = "silu",
    dtype: str = "float32",
) -> tuple[nn.Module, nn.Module]:
    """Returns the networks of a VAE.

    Args:
        spec: of the data.
        outputs_per_dim: what the likelihood needs for each dimension of x.
        network: "mlp" or "conv".
        hidden: widths of the encoder, which the decoder has in reverse; None for the usual ones.
        latent_dim: dimensions of z.
        activation: name of a function of `flax.linen`.
        dtype: precision of the computation.
    """
    widths = hidden or _WIDTHS[network]
    settings = {"activation": getattr(nn, activation), "dtype": dtype}
    make_encoder, make_decoder = _NETWORKS[network]
    return (
        make_encoder(widths, latent_dim, **settings),
        make_decoder(widths[::-1], spec.shape, outputs_per_dim, **settings),
    )
