"""The configuration of latent diffusion: a VAE, whose latents are flat or an image, and a diffusion model of them."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from gm_jax.config import AdamConfig, Added, Count, Measuring, Precision, Rate, RateOrZero, Widths
from gm_jax.recipes.configs.diffusion import AnyDiffusionConfig, DiTConfig, MLPConfig, UNetConfig
from gm_jax.recipes.configs.preset import PresetName


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The first stage, a VAE whose latents are a vector."""

    name: ClassVar[str] = "flat"
    # The default of `steps`: this share of the run, and at most so many.
    most_steps: ClassVar[int] = 4_000
    share: ClassVar[tuple[int, int]] = (1, 3)
    steps: Count | None = None
    """How many of --train.steps train the VAE; the others train the diffusion model. By default a third, and at most
    4,000."""
    optimizer: AdamConfig = AdamConfig(warmup_steps=None)
    network: Literal["mlp", "conv"] = "mlp"
    """Fully connected, or convolutional (for images whose sides are multiples of 4)."""
    hidden: Widths = (256, 256)
    """Widths of the fully connected hidden layers, or channels of the convolutional stages."""
    latent_dim: Count = 16
    """Dimensions of z."""
    decoder: Literal["bernoulli", "normal", "discretized_logistic"] | None = None
    """p(x|z); by default bernoulli for binary data, and normal for other data."""
    log_var: float = -4.0
    """For normal: its log-variance, for pixels in [0, 1]; a learned one overfits small data sets."""
    beta: RateOrZero = 0.3
    """Weight of the KL term; less than 1 leaves more for the diffusion model to learn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpatialAutoencoderConfig:
    """The first stage, a convolutional VAE whose latents are a small image."""

    name: ClassVar[str] = "spatial"
    # The default of `steps`: this share of the run, and at most so many.
    most_steps: ClassVar[int] = 12_000
    share: ClassVar[tuple[int, int]] = (3, 7)
    steps: Count | None = None
    """How many of --train.steps train the VAE; the others train the diffusion model. By default three sevenths, and at
    most 12,000."""
    optimizer: AdamConfig = AdamConfig(learning_rate=1.5e-3, warmup_steps=None, b2=0.99)
    patch: Count = 2
    """Side of the squares of pixels whose numbers are the channels of the first level: 1, 2 or 4."""
    features: Widths = (24, 48)
    """Channels of each level; each level except the last halves the sides."""
    blocks: Count = 1
    """Residual blocks of each level."""
    channels: Count = 4
    """Channels of the latents."""
    groups: Count = 8
    """Groups of channels of each normalisation."""
    attention: bool = False
    """Self-attention at the smallest level."""
    log_var: float = -6.0
    """Log-variance of p(x|z), for pixels in [0, 1]."""
    beta: RateOrZero = 1e-3
    """Weight of the KL term. More of it makes latents independent, which the diffusion model finds harder to learn."""
    remat: Annotated[bool, Added(False)] = False
    """Store only the inputs of blocks for the backward pass, which computes the rest again: less memory on
    accelerators, more arithmetic."""
    dtype: Precision = "float32"
    """Precision of the networks' computation; parameters and losses stay float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentDiffusionConfig(AnyDiffusionConfig):
    """A VAE, then a diffusion model of its latents."""

    recipe: ClassVar[str] = "gm_jax.recipes.diffusion:build_latent_diffusion"
    preset: PresetName = None
    autoencoder: AutoencoderConfig | SpatialAutoencoderConfig = AutoencoderConfig()
    network: MLPConfig | UNetConfig | DiTConfig = MLPConfig(hidden=256, blocks=3, dropout=0.1)
    """An MLPConfig for latents that are a vector, a UNetConfig or a DiTConfig for those that are an image."""
    prediction: Literal["noise", "data", "velocity"] = "velocity"
    """What the network predicts: eps (noise), x_0 (data), or v of Salimans & Ho 2022 (velocity), which starts at the
    standard normal prior of the VAE."""
    beta_min: Rate | None = 1.0
    """T beta_1 of a linear or quadratic schedule; DDPM has 0.1. Latents carry noise of their own and need no finer
    steps."""
    validation_terms: Count = 100
    """Denoising terms of the bound that are drawn at a validation in training."""
    elbo_samples: Annotated[
        Count, Measuring, arg(help="Latents per example, for the reconstruction term of the bound.")
    ] = 10
