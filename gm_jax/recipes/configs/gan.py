"""Configurations of generative adversarial networks."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from gm_jax.config import (
    AdamConfig,
    Added,
    Count,
    DataConfig,
    Measuring,
    Precision,
    Rate,
    RateOrZero,
    Share,
    TrainConfig,
    Widths,
)
from gm_jax.recipes.configs.preset import PresetName


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyGANConfig:
    """The fields that all GANs share."""

    data: DataConfig = DataConfig()
    train: TrainConfig
    generator: AdamConfig
    discriminator: AdamConfig
    network: Literal["conv", "mlp", "resnet"] | None = None
    """conv or resnet (residual blocks) for images, mlp for points or for images as vectors; by default conv if the data
    are images."""
    features: Count = 32
    """conv: channels of the stage next to the image; each further stage has twice as many. resnet: channels of all
    blocks."""
    discriminator_features: Annotated[Count | None, Added(None)] = None
    """resnet: channels of the discriminator's blocks; by default --features."""
    hidden: Widths = (128, 128, 128)
    """mlp: widths of the hidden layers of both players."""
    latent_dim: Count = 32
    """Dimensions of z."""
    conditional: Annotated[bool, Added(False)] = False
    """Generator and discriminator also see the label; a sample without a label has one drawn."""
    centres: Annotated[
        Count, Measuring, arg(help="Samples at the centres of the kernels of the estimated density.")
    ] = 1_000
    dtype: Precision = "float32"
    """Precision of the networks' computation; parameters and losses stay float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GANConfig(AnyGANConfig):
    """A game of two players."""

    recipe: ClassVar[str] = "gm_jax.recipes.gan:build_gan"
    preset: PresetName = None
    game: Literal["non_saturating", "saturating", "hinge", "least_squares"] = "non_saturating"
    """The losses of the two players."""
    r1: RateOrZero = 0.0
    """Weight of the penalty on the discriminator's gradient at the data; 0 for none."""
    spectral_norm: bool = False
    """Divide the discriminator's kernels by their largest singular values; it replaces batch norm."""
    discriminator_steps: Annotated[Count, Added(1)] = 1
    """Discriminator steps per generator step; --train.steps counts discriminator steps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImprovedGANConfig(AnyGANConfig):
    """The non-saturating game with five techniques, each a switch; without any of them it is a GAN."""

    recipe: ClassVar[str] = "gm_jax.recipes.gan:build_improved_gan"
    feature_matching: bool = False
    """The generator matches the mean features of the data instead of deceiving the discriminator. Use it alone and if a
    game loses part of the data; otherwise it makes samples worse."""
    minibatch_discrimination: bool = True
    """The discriminator sees how close the examples of a batch lie to one another. It hurts if no mode is lost."""
    historical_averaging: RateOrZero = 1e-4
    """Weight of the squared distance of the parameters from their mean over the past; 0 for none."""
    label_smoothing: Share = 0.1
    """The discriminator's target for data is 1 minus this; its target for generated examples stays 0."""
    virtual_batch_norm: bool = True
    """Normalise the generator by a fixed batch and the example itself, instead of the current batch."""
    kernels: Count = 16
    """Minibatch discrimination: similarities of each pair of examples."""
    kernel_dim: Count = 8
    """Minibatch discrimination: dimensions of each similarity."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WGANGPConfig(AnyGANConfig):
    """A critic with a gradient penalty and without normalisation, because the penalty is on single scores."""

    recipe: ClassVar[str] = "gm_jax.recipes.gan:build_wgan_gp"
    preset: PresetName = None
    penalty: Rate | None = None
    """Weight of the gradient penalty; by default 10, as in the paper, and 0.1 for points."""
    critic_steps: Count = 5
    """Critic steps per generator step; --train.steps counts critic steps."""
