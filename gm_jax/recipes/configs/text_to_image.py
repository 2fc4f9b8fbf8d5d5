"""The configuration of text to image: a spatial autoencoder, a text encoder, and a U-Net or a diffusion transformer."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from gm_jax.config import (
    Added,
    Count,
    CountOrZero,
    DataConfig,
    Guidance,
    Measuring,
    Rate,
    Sampling,
    Share,
)
from gm_jax.recipes.configs.diffusion import AnyDiffusionConfig, DiTConfig, SamplerConfig, UNetConfig
from gm_jax.recipes.configs.latent_diffusion import SpatialAutoencoderConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """A transformer that reads captions, trained with the diffusion model."""

    features: Count = 64
    """Width."""
    layers: CountOrZero = 2
    """Blocks."""
    heads: Count = 4
    """Heads of each attention; they divide the width."""
    summary: Annotated[Literal["sum", "start"], Added("start")] = "sum"
    """What of a caption joins the time: the sum of all contexts over the root of their number, or that of the start."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextToImageConfig(AnyDiffusionConfig):
    """Latent diffusion of captioned images."""

    recipe: ClassVar[str] = "gm_jax.recipes.text_to_image:build_text_to_image"
    data: DataConfig = DataConfig(name="captions")
    autoencoder: SpatialAutoencoderConfig = SpatialAutoencoderConfig()
    network: UNetConfig | DiTConfig = UNetConfig(features=(64, 64), attention=(0, 1), head_dim=32, scale_shift=True)
    prediction: Literal["noise", "data", "velocity"] = "velocity"
    """What the network predicts: eps (noise), x_0 (data), or v of Salimans & Ho 2022 (velocity). Errors of eps at large
    noise, where a caption is obeyed or not, are errors of x_0 with little weight; those of v have full weight."""
    text: TextEncoderConfig = TextEncoderConfig()
    sampler: SamplerConfig = SamplerConfig(method="ddim", steps=50)
    beta_min: Rate | None = 1.0
    """T beta_1 of a linear or quadratic schedule; DDPM has 0.1. Latents carry noise of their own and need no finer
    steps."""
    guidance: Annotated[
        Guidance,
        Sampling,
        arg(
            help="w of classifier-free guidance: 0 for the conditional model, -1 for the unconditional one. Other "
            "libraries call 1 + w the guidance scale."
        ),
    ] = 2.0
    negative_prompt: Annotated[
        str, Sampling, arg(help="What guidance leads away from, instead of from an empty caption.")
    ] = ""
    learned_weight: Annotated[bool, Added(before=False)] = True
    """Divide errors by their expected size given the time and the caption, which is learned: what captions leave free
    makes large errors, and hides what words change. Without it, --optimizer.clip-norm 1 suits the smaller loss."""
    drop_caption: Share = 0.05
    """Share of training examples whose caption is hidden from the network."""
    bound_terms: Annotated[
        CountOrZero,
        Measuring,
        arg(help="Denoising terms of the bound that the evaluation draws for each example; 0 for all T - 1."),
    ] = 20
    validation_terms: Count = 5
    """Denoising terms of the bound that are drawn at a validation in training."""
    elbo_samples: Annotated[
        Count, Measuring, arg(help="Latents per example, for the reconstruction term of the bound.")
    ] = 1
