"""Recipes of diffusion models, in data space and in a latent space."""

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.models import diffusion, diffusion_space, latent_diffusion, learned_variance, learned_weight, vae
from gm_jax.models.path_sampling import PathSampler
from gm_jax.networks import diffusion_mlp, unet
from gm_jax.networks.convolution import Conv
from gm_jax.ops import diffusion_process
from gm_jax.plotting import diffusion as plotting
from gm_jax.plotting import vae as autoencoder_plotting
from gm_jax.recipes import image_shapes, path_samplers
from gm_jax.recipes.configs.diffusion import (
    AnyDiffusionConfig,
    ConditionalDDPMConfig,
    DDPMConfig,
    DiTConfig,
    MLPConfig,
    SamplerConfig,
    UNetConfig,
)
from gm_jax.recipes.configs.latent_diffusion import LatentDiffusionConfig
from gm_jax.recipes.configs.text_to_image import TextToImageConfig
from gm_jax.recipes.dit import make_dit
from gm_jax.recipes.experiment import Experiment, LogProbEvaluation, Observation
from gm_jax.recipes.first_stage import make_first_stage
from gm_jax.recipes.optimizers import make_adam, make_optimizer
from gm_jax.recipes.run_length import second_stage_steps
from gm_jax.samplers import ddim, ddpm, time_grids
from gm_jax.samplers.diffusion import Sampler, trailing_times

_BETA_MAX = 20.0  # T beta_T of the linear and quadratic schedules, as in the paper
_SCHEDULES = {"linear": diffusion_process.linear_schedule, "quadratic": diffusion_process.quadratic_schedule}
_VARIANCES = {
    "transition": diffusion_process.transition_variance,
    "posterior": diffusion_process.posterior_variance,
}


def build_ddpm(config: DDPMConfig, spec: Spec) -> Experiment:
    """Builds a diffusion model without labels.

    Raises:
        UserError: the fields contradict each other or do not fit the data.
    """
    experiment = _data_space_experiment(config, config.network, spec, num_classes=None)
    if not config.learned_variance and config.loss_aware_times:
        raise UserError("--loss-aware-times has no effect without --learned-variance: add it, or leave it out.")
    return _with_learned_variance(experiment, config, loss_aware=config.loss_aware_times)


def _with_learned_variance(
    experiment: Experiment, config: DDPMConfig | ConditionalDDPMConfig, *, loss_aware: bool = False
) -> Experiment:
    """Returns the experiment with a learned variance, if the configuration asks for one."""
    if not config.learned_variance:
        if config.bound_weight != DDPMConfig.bound_weight:
            raise UserError("--bound-weight has no effect without --learned-variance: add it, or leave it out.")
        return experiment
    inner: diffusion.Diffusion = experiment.family
    inner = dataclasses.replace(
        inner,
        network=inner.network.clone(outputs=2),
        parameterization=learned_variance.of_first_output(inner.parameterization),
    )
    is_ancestral = config.sampler.method == "ancestral"
    family = learned_variance.LearnedVariance(
        diffusion=inner,
        bound_weight=config.bound_weight,
        loss_aware=loss_aware,
        sampling_times=trailing_times(config.diffusion_steps, config.sampler.steps) if is_ancestral else None,
    )
    validation = dataclasses.replace(family, diffusion=with_bound_terms(inner, config.validation_terms))
    # Its pictures show the means of the reverse process, with one of the fixed variances.
    return experiment._replace(
        model=family.model,
        family=family,
        validation=validation.log_prob,
        pictures=plotting.grids(inner),
        settings={"variance": "learned"},
    )


def build_conditional_ddpm(config: ConditionalDDPMConfig, spec: Spec) -> Experiment:
    """Builds a diffusion model with labels."""
    if spec.num_classes is None:
        raise UserError(f"{spec.name} has no labels to condition on: use python -m experiments.ddpm.")
    if not 0.0 < config.drop_label < 1.0:
        raise UserError(
            f"--drop-label {config.drop_label} leaves one of the two models without examples: use a number between 0 "
            "and 1."
        )
    settings = {"guidance": config.guidance, "drop_label": config.drop_label}
    experiment = _data_space_experiment(config, config.network, spec, num_classes=spec.num_classes, **settings)
    return _with_learned_variance(experiment, config)


def build_latent_diffusion(config: LatentDiffusionConfig, spec: Spec) -> Experiment:
    """Builds a VAE and a diffusion model of its latents, in two stages of one run.

    Raises:
        UserError: the network does not take such latents, or the fields contradict each other.
    """
    _check_network(config)
    first = make_first_stage(config.autoencoder, spec, elbo_samples=config.elbo_samples)
    network = make_network(config.network, first.latents, None)
    if isinstance(network, unet.UNet):
        network = network.clone(conv=Conv)  # trained in turns
    experiment = two_stages(config, first.autoencoder, diffusion_model(config, network, first.latents), spec)
    pictures, evaluations = {}, ()
    if image_shapes.is_image(first.latents):
        pictures = {"reconstructions": partial(autoencoder_plotting.reconstructions, first.autoencoder)}
        evaluations = (LogProbEvaluation("autoencoder_negative_elbo", experiment.family.autoencoder_elbo),)
    return experiment._replace(
        settings={**experiment.settings, **first.facts},
        pictures=pictures,
        evaluations=evaluations,
        # Samples are decoded means, which are grey even if the likelihood is of binary pixels.
        observation=Observation(lambda key, x: x, spec.measure),
    )


def two_stages(
    config: LatentDiffusionConfig | TextToImageConfig, autoencoder: vae.VAE, prior: diffusion.Diffusion, spec: Spec
) -> Experiment:
    """Returns an experiment that trains a VAE, and then a diffusion model of its latents.

    Raises:
        UserError: the first stage leaves no steps, or too few for the second.
    """
    first = config.autoencoder
    rest = second_stage_steps(first, num_steps=config.train.steps)
    family = latent_diffusion.LatentDiffusion(
        autoencoder=autoencoder, prior=prior, levels=spec.levels, vae_steps=config.train.steps - rest
    )
    validation = dataclasses.replace(family, prior=with_bound_terms(prior, config.validation_terms))
    return Experiment(
        family.model,
        family=family,
        optimizers={
            "vae": make_adam(first.optimizer, num_updates=config.train.steps - rest, section="autoencoder.optimizer"),
            "diffusion": make_optimizer(config.optimizer, num_steps=rest),
        },
        validation=validation.log_prob,
        settings={"variance": config.variance},
    )


def _check_network(config: LatentDiffusionConfig) -> None:
    """Checks that the network of the second stage takes latents of the first stage's kind.

    Raises:
        UserError: it does not.
    """
    kind, network = config.autoencoder.name, config.network.name
    if (kind == "spatial") == isinstance(config.network, MLPConfig):
        fits, latents = ("unet or dit", "an image") if kind == "spatial" else ("mlp", "a vector")
        other = "flat" if kind == "spatial" else "spatial"
        raise UserError(
            f"the latents of --autoencoder {kind} are {latents}, which --network {network} cannot take: use --network "
            f"{fits}, or --autoencoder {other}."
        )


def diffusion_model(
    config: AnyDiffusionConfig,
    network: UNetConfig | MLPConfig | DiTConfig | nn.Module | None,
    spec: Spec,
    *,
    num_classes: int | None = None,
    log_error: nn.Module | None = None,
    **settings: Any,
) -> diffusion.Diffusion:
    """Returns the diffusion model that a configuration describes.

    Args:
        config: the configuration.
        network: the network's part of it, or the network itself; None for the usual one of such data.
        spec: of the data.
        num_classes: None for a model without labels.
        log_error: the network u of `models.learned_weight`; None for errors that all weigh the same.
        **settings: settings of labels and captions, for `models.diffusion.Diffusion`.

    Raises:
        UserError: the fields contradict each other or do not fit the data.
    """
    if config.sampler.steps > config.diffusion_steps:
        raise UserError(
            f"--sampler.steps {config.sampler.steps} is more than --diffusion-steps {config.diffusion_steps}: use at "
            "most as many."
        )
    schedule = noise_schedule(config, spec.levels)
    space = diffusion_space.points() if spec.levels is None else diffusion_space.pixels(levels=spec.levels)
    predictions = {
        "noise": diffusion.noise_prediction,
        "data": diffusion.data_prediction,
        "velocity": diffusion.v_prediction,
    }
    kind = diffusion.Diffusion if log_error is None else partial(learned_weight.WeightedDiffusion, log_error=log_error)
    return kind(
        network=network if isinstance(network, nn.Module) else make_network(network, spec, num_classes),
        space=space,
        schedule=schedule,
        shape=spec.shape,
        parameterization=predictions[config.prediction](),
        sampler=make_sampler(config.sampler, schedule, space.clip),
        variance_fn=_VARIANCES[config.variance],
        num_bound_terms=config.bound_terms or None,
        num_classes=num_classes,
        **settings,
    )


def noise_schedule(config: AnyDiffusionConfig, levels: int | None) -> diffusion_process.Schedule:
    """Returns the noise schedule that a configuration describes, for data of so many levels over [-1, 1].

    Raises:
        UserError: it has too few steps for its kind, or beta_min or beta_max does not fit it.
    """
    if config.schedule == "cosine":
        for flag, beta in (("beta-min", config.beta_min), ("beta-max", config.beta_max)):
            if beta is not None:
                raise UserError(
                    f"--{flag} {beta} has no effect on the cosine schedule: use --{flag} None, or --schedule linear."
                )
        if config.diffusion_steps < 2:
            raise UserError(f"--diffusion-steps {config.diffusion_steps} is too few for any schedule: use at least 2.")
        return diffusion_process.cosine_schedule(config.diffusion_steps)
    beta_max = config.beta_max or _BETA_MAX
    if config.diffusion_steps <= beta_max:
        raise UserError(
            f"--diffusion-steps {config.diffusion_steps} is too few: the {config.schedule} schedule needs more than "
            f"{beta_max:g} steps.\nUse more, or --schedule cosine."
        )
    quarter = 0.0 if levels is None else 0.5 / (levels - 1)
    beta_min = config.beta_min or min(max(0.1, config.diffusion_steps * quarter**2), 1.0)
    if beta_min >= beta_max:
        raise UserError(f"--beta-min {beta_min:g} is not below the schedule's end: use less than {beta_max:g}.")
    return _SCHEDULES[config.schedule](config.diffusion_steps, beta_min=beta_min, beta_max=beta_max)


def make_sampler(
    config: SamplerConfig, schedule: diffusion_process.Schedule, clip: tuple[float, float] | None
) -> Sampler | PathSampler:
    """Returns the sampler that a configuration describes; `clip` is the range of the data, None without one.

    Raises:
        UserError: eta is out of its range, or is given for a sampler that has none.
    """
    if config.eta and config.method != "ddim":
        raise UserError(f"--sampler.eta {config.eta} has no effect on {config.method}: use --sampler.method ddim.")
    if config.method == "ancestral":
        return ddpm.ancestral(schedule, config.steps, variance_fn=_VARIANCES[config.variance])
    if config.method == "ddim":
        if config.eta > 1.0:
            raise UserError(f"--sampler.eta {config.eta} is out of its range: use a number from 0 to 1.")
        return ddim.ddim(schedule, config.steps, eta=config.eta)
    if config.steps < 2:
        raise UserError(f"--sampler.steps {config.steps} is too few for {config.method}: use at least 2.")
    # Equal steps in log snr for the solver that is exact in it, and in the time of the schedule for others.
    grid_fn = time_grids.uniform_log_snr if config.method == "dpmpp" else time_grids.uniform
    return path_samplers.named_sampler(config.method, config.steps, grid_fn, clip=clip)


def make_network(
    network: UNetConfig | MLPConfig | DiTConfig | None,
    spec: Spec,
    num_classes: int | None,
    *,
    augmented: int | None = None,
) -> nn.Module:
    """Returns the network that a configuration describes; with labels it has one more class, "no label".

    `augmented` is how many numbers tell a network of images what was done to them.

    Raises:
        UserError: the network does not fit the data, or attention is asked of a level that does not exist.
    """
    if network is None:
        network = UNetConfig() if image_shapes.is_image(spec) else MLPConfig()
    if isinstance(network, DiTConfig):
        if not image_shapes.is_image(spec):
            raise UserError(f"{spec.name} is not made of images, which --network dit needs: use --network mlp.")
        return make_dit(network, num_classes=num_classes)
    labels = None if num_classes is None else num_classes + 1
    settings: dict[str, Any] = {"num_classes": labels, "dropout": network.dropout, "dtype": network.dtype}
    if isinstance(network, MLPConfig):
        if image_shapes.is_image(spec):
            raise UserError(f"{spec.name} is made of images, which --network mlp cannot take: use --network unet.")
        return diffusion_mlp.DiffusionMLP(network.hidden, network.blocks, **settings)
    if not image_shapes.is_image(spec):
        raise UserError(f"{spec.name} is not made of images, which --network unet needs: use --network mlp.")
    if any(not 0 <= level < len(network.features) for level in network.attention):
        raise UserError(
            f"--network.attention {' '.join(map(str, network.attention))} names a level that does not exist: the "
            f"{len(network.features)} levels of --network.features are numbered from 0."
        )
    settings |= {"groups": network.groups, "head_dim": network.head_dim, "stem": network.stem}
    settings |= {"scale_shift": network.scale_shift, "rescale": network.rescale, "remat": network.remat}
    settings |= {"resample": network.resample}
    return unet.UNet(network.features, network.blocks, network.attention, augmented=augmented, **settings)


def _data_space_experiment(
    config: AnyDiffusionConfig,
    network: UNetConfig | MLPConfig | DiTConfig | None,
    spec: Spec,
    *,
    num_classes: int | None,
    **settings: Any,
) -> Experiment:
    family = diffusion_model(config, network, spec, num_classes=num_classes, **settings)
    return Experiment(
        family.model,
        family=family,
        optimizers={"diffusion": make_optimizer(config.optimizer, num_steps=config.train.steps)},
        validation=with_bound_terms(family, config.validation_terms).log_prob,
        pictures=plotting.grids(family),
        settings={"variance": config.variance},
        uses_labels=num_classes is not None,
    )


def with_bound_terms(family: diffusion.Diffusion, num_terms: int) -> diffusion.Diffusion:
    """Returns the family with another number of denoising terms in its bound; 0 for all."""
    return dataclasses.replace(family, num_bound_terms=num_terms or None)
