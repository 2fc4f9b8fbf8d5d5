"""Two players: networks, optimisers and measures that adversarial experiments share. It is no experiment of its own."""

import dataclasses
import math
from functools import partial
from typing import Annotated, Literal

from experiments import realnvp
from gm_jax import runner


@dataclasses.dataclass(frozen=True)
class AdamConfig(runner.OptimizerConfig):
    """Adam of one player; the moments are those of Radford et al. (2016)."""

    learning_rate: runner.Rate = 1e-3
    b1: runner.Decay = 0.5
    """Decay of the first moment."""
    b2: runner.Decay = 0.999
    """Decay of the second moment."""


@dataclasses.dataclass(frozen=True)
class PlayersConfig:
    """What every adversarial experiment shares: all but the game."""

    data: runner.DataConfig = runner.DataConfig()
    train: runner.TrainConfig = runner.TrainConfig(steps=6_000, batch_size=128, checkpoint_every=1_000, ema_decay=0.995)
    generator: AdamConfig = AdamConfig(schedule="cosine")
    discriminator: AdamConfig = AdamConfig(schedule="cosine")
    network: Literal["conv", "mlp"] | None = None
    """conv for images, mlp for points or images as vectors; by default what the data are."""
    features: runner.Count = 32
    """conv: channels of the stage next to the image; each stage inwards has twice as many."""
    hidden: runner.Widths = (128, 128, 128)
    """mlp: widths of the hidden layers, of both players."""
    latent_dim: runner.Count = 32
    """Dimensions of z."""
    centres: Annotated[runner.Count, runner.Measuring] = 1_000
    """Samples on which the kernels of the estimated density stand."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the networks' computation; parameters and losses stay float32."""


def players(config: PlayersConfig, spec):
    """Factories of generator and discriminator, of any further settings."""
    import jax.numpy as jnp

    from gm_jax.networks import dcgan, gan_mlp

    if (config.network or ("conv" if len(spec.shape) == 3 else "mlp")) == "mlp":
        end = None if spec.levels is None else jnp.tanh
        return (
            partial(gan_mlp.MLPGenerator, config.hidden, spec.shape, output_activation=end, dtype=config.dtype),
            partial(gan_mlp.MLPDiscriminator, config.hidden, dtype=config.dtype),
        )
    realnvp.check_images(spec)
    widths = tuple(config.features * 2**stage for stage in range(max(2, realnvp.halvings(spec.shape, smallest=4))))
    return (
        partial(dcgan.DCGANGenerator, spec.shape, widths[::-1], dtype=config.dtype),
        partial(dcgan.DCGANDiscriminator, widths, dtype=config.dtype),
    )


def experiment(config: PlayersConfig, spec, generator, discriminator, game, *, generator_every=1, **settings):
    """What every adversarial experiment shares: the two put together, their optimisers, what is measured of them."""
    import jax.numpy as jnp

    from gm_jax.evaluation import kde
    from gm_jax.models import gan

    bandwidths = jnp.geomspace(0.01, 10.0, 60)
    kernels = gan.Kernels(kde.likelihood, partial(kde.choose_bandwidth, grid=bandwidths), config.centres)
    scaling, side = (gan.points(), "R") if spec.levels is None else (gan.images(levels=spec.levels), "[0,1]")
    model = gan.GAN(
        generator=generator,
        discriminator=discriminator,
        losses=game,
        scaling=scaling,
        latent_dim=config.latent_dim,
        generator_every=generator_every,
        kernels=kernels,
        **settings,
    )

    def adam(player: AdamConfig, every: int):
        return runner.make_optimizer(player, config.train, every=every, b1=player.b1, b2=player.b2)

    return runner.Experiment(
        model.model,
        optimizers={
            "generator": adam(config.generator, generator_every),
            "discriminator": adam(config.discriminator, 1),
        },
        calibrate=model.calibrate,
        statistics=_mode_statistics() if spec.name == "toy:eight_gaussians" else {},
        settings={"space": f"{side}^{math.prod(spec.shape)}"},
    )


def _mode_statistics() -> dict[str, runner.Statistic]:
    """Of the eight Gaussians: how many modes samples cover, and which shares of samples lie how near to one."""
    from gm_jax.data import toy
    from gm_jax.evaluation.mode_coverage import mode_coverage

    modes, std = toy.eight_gaussians_modes()
    shares = dict.fromkeys(("share_at_modes", "share_within_std", "share_of_rarest"), "of samples")
    units = {"modes_covered": "of 8", **shares}

    def statistic(name: str) -> runner.Statistic:
        return runner.Statistic(lambda samples: getattr(mode_coverage(samples, modes, std), name), units[name])

    return {name: statistic(name) for name in units}
