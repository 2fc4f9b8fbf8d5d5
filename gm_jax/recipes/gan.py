"""Recipes of generative adversarial networks."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from gm_jax.data import toy
from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.evaluation import kde
from gm_jax.evaluation.mode_coverage import mode_coverage
from gm_jax.models import adversarial_objectives, conditional_gan, gan
from gm_jax.networks import dcgan, gan_mlp, gan_resnet
from gm_jax.networks.class_conditional import LabelledInput, ProjectionDiscriminator
from gm_jax.networks.minibatch_discrimination import MinibatchDiscrimination
from gm_jax.networks.normalization import WithReferenceBatch
from gm_jax.plotting import class_conditional
from gm_jax.plotting import gan as plotting
from gm_jax.recipes import image_shapes, labels
from gm_jax.recipes.configs.gan import AnyGANConfig, GANConfig, ImprovedGANConfig, WGANGPConfig
from gm_jax.recipes.experiment import Experiment, SampleEvaluation
from gm_jax.recipes.optimizers import make_adam
from gm_jax.training.parallel import AXIS
from gm_jax.types import Array

_BANDWIDTHS = (0.01, 10.0, 60)  # the first, the last, and how many


def build_gan(config: GANConfig, spec: Spec) -> Experiment:
    """Builds generator and discriminator; convolutional ones are batch-normalised."""
    penalties = {"r1": adversarial_objectives.r1_penalty(weight=config.r1)} if config.r1 else {}
    # The penalty is on the gradient of single scores; spectral normalisation replaces batch norm.
    without_norm = {"norm": None} if config.r1 or config.spectral_norm else {}
    make_generator, make_discriminator = player_networks(config, spec)
    discriminator = make_discriminator(spectral_norm=config.spectral_norm, **without_norm)
    losses = getattr(adversarial_objectives, config.game)()
    every = _generator_every(config.discriminator_steps, "discriminator", config)
    return adversarial_experiment(
        config, spec, make_generator(), discriminator, losses, penalties=penalties, generator_every=every
    )


def build_improved_gan(config: ImprovedGANConfig, spec: Spec) -> Experiment:
    """Builds the techniques that are switched on, each into its place: network, game or loss."""
    if config.network == "resnet":
        raise UserError("--network resnet has no place for these techniques: use --network conv or mlp.")
    if config.label_smoothing >= 1.0:
        raise UserError(f"--label-smoothing {config.label_smoothing} leaves no target for data: use less than 1.")
    if config.virtual_batch_norm and config.train.batch_size < 2:
        raise UserError(
            f"--train.batch-size {config.train.batch_size} is too small for the reference batch of virtual batch "
            "normalisation: use at least 2, or --no-virtual-batch-norm."
        )
    # Under pmap a device sees its part of the batch; the techniques that compare examples want the whole batch.
    axis_name = AXIS if config.train.parallel == "pmap" else None
    make_generator, make_discriminator = player_networks(config, spec)
    similarities = MinibatchDiscrimination(config.kernels, config.kernel_dim, axis_name=axis_name)
    return adversarial_experiment(
        config,
        spec,
        WithReferenceBatch(make_generator) if config.virtual_batch_norm else make_generator(),
        make_discriminator(minibatch_discrimination=similarities if config.minibatch_discrimination else None),
        adversarial_objectives.non_saturating(real_target=1.0 - config.label_smoothing),
        feature_matching=config.feature_matching,
        historical_averaging=config.historical_averaging,
        axis_name=axis_name,
    )


def build_wgan_gp(config: WGANGPConfig, spec: Spec) -> Experiment:
    """Builds a critic whose slope is held to 1 between data and generated examples."""
    every = _generator_every(config.critic_steps, "critic", config)
    make_generator, make_critic = player_networks(config, spec, pool=jnp.mean)
    penalty = config.penalty or (0.1 if len(spec.shape) == 1 else 10.0)
    return adversarial_experiment(
        config,
        spec,
        make_generator(),
        make_critic(norm=None, output_bias=False),
        adversarial_objectives.wasserstein(),
        penalties={"gradient_penalty": adversarial_objectives.gradient_penalty(weight=penalty)},
        generator_every=every,
    )


def player_networks(
    config: AnyGANConfig, spec: Spec, *, pool: Callable[..., Array] = jnp.sum
) -> tuple[Callable[..., nn.Module], Callable[..., nn.Module]]:
    """Returns factories of generator and discriminator, which take further settings by name.

    Args:
        config: the configuration.
        spec: of the data.
        pool: what a residual discriminator does with the places of its last map.
    """
    if config.discriminator_features is not None and config.network != "resnet":
        raise UserError(
            f"--discriminator-features {config.discriminator_features} has no effect on this network: leave it out, or "
            "use --network resnet."
        )
    if (config.network or ("conv" if image_shapes.is_image(spec) else "mlp")) == "mlp":
        end = None if spec.levels is None else jnp.tanh
        return (
            partial(gan_mlp.MLPGenerator, config.hidden, spec.shape, output_activation=end, dtype=config.dtype),
            partial(gan_mlp.MLPDiscriminator, config.hidden, dtype=config.dtype),
        )
    shape = image_shapes.image_shape(spec)
    if config.network == "resnet":
        doublings = max(1, image_shapes.count_halvings(shape, smallest=4))
        width = config.discriminator_features or config.features
        return (
            partial(gan_resnet.ResNetGenerator, shape, config.features, doublings, dtype=config.dtype),
            partial(gan_resnet.ResNetDiscriminator, width, pool, dtype=config.dtype),
        )
    stages = max(2, image_shapes.count_halvings(shape, smallest=4))
    widths = tuple(config.features * 2**stage for stage in range(stages))
    return (
        partial(dcgan.DCGANGenerator, shape, widths[::-1], dtype=config.dtype),
        partial(dcgan.DCGANDiscriminator, widths, dtype=config.dtype),
    )


def adversarial_experiment(
    config: AnyGANConfig,
    spec: Spec,
    generator: nn.Module,
    discriminator: nn.Module,
    losses: adversarial_objectives.AdversarialLosses,
    *,
    generator_every: int = 1,
    **settings: Any,
) -> Experiment:
    """Puts two players together, with their optimisers and what is measured of them.

    Args:
        config: the configuration.
        spec: of the data.
        generator: network.
        discriminator: network.
        losses: of both players.
        generator_every: steps of the discriminator per step of the generator.
        **settings: further ones of the family.
    """
    kernels = gan.Kernels(
        kde.likelihood, partial(kde.choose_bandwidth, grid=jnp.geomspace(*_BANDWIDTHS)), config.centres
    )
    scaling, side = (gan.points(), "R") if spec.levels is None else (gan.images(levels=spec.levels), "[0,1]")
    num_classes = labels.num_classes(spec) if config.conditional else 0
    if config.conditional:
        generator = LabelledInput(generator, num_classes)
        discriminator = ProjectionDiscriminator(discriminator, num_classes)
    game = gan.GAN(
        generator=generator,
        discriminator=discriminator,
        losses=losses,
        scaling=scaling,
        latent_dim=config.latent_dim,
        generator_every=generator_every,
        kernels=kernels,
        **settings,
    )
    family: gan.GAN | conditional_gan.ConditionalGAN = game
    pictures = plotting.grids(game, spec.shape)
    if config.conditional:
        family = conditional_gan.ConditionalGAN(gan=game, num_classes=num_classes)
        pictures = class_conditional.grids_of_gan(family, spec.shape)
    steps = config.train.steps
    return Experiment(
        family.model,
        family=family,
        optimizers={
            "generator": make_adam(config.generator, num_updates=steps // generator_every, section="generator"),
            "discriminator": make_adam(config.discriminator, num_updates=steps, section="discriminator"),
        },
        pictures=pictures,
        prepare_evaluation=family.calibrate,
        evaluations=(mode_evaluation(),) if spec.name == "toy:eight_gaussians" else (),
        settings={"space": f"{side}^{math.prod(spec.shape)}"},
        uses_labels=config.conditional,
    )


def _generator_every(steps: int, player: str, config: AnyGANConfig) -> int:
    """Returns how many steps of the other player make one of the generator.

    Raises:
        UserError: the run ends before the first.
    """
    if config.train.steps < steps:
        raise UserError(
            f"--{player}-steps {steps} leave the generator no update in {config.train.steps} steps: use fewer, or "
            "train for more steps."
        )
    return steps


def mode_evaluation() -> SampleEvaluation:
    """Returns how many of the eight Gaussians samples cover, and which shares of samples lie near one of them."""
    modes, std = toy.eight_gaussians_modes()
    shares = dict.fromkeys(("share_at_modes", "share_within_std", "share_of_rarest"), "of samples")
    units = {"modes_covered": "of 8", **shares}

    def measure(samples: np.ndarray) -> dict[str, float]:
        coverage = mode_coverage(samples, modes, std)
        return {name: getattr(coverage, name) for name in units}

    return SampleEvaluation(units, measure)
