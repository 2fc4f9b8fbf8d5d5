"""Configurations of diffusion models in data space, and the parts that those of latents share."""

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
    OptimizerConfig,
    Precision,
    Rate,
    RateOrZero,
    Sampling,
    Share,
    TrainConfig,
    Widths,
)
from gm_jax.recipes.configs.preset import PresetName


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """A U-Net, for images."""

    name: ClassVar[str] = "unet"
    features: Widths = (32, 64)
    """Channels of each level; each level except the last halves the sides."""
    blocks: Count = 1
    """Residual blocks of each level."""
    attention: tuple[int, ...] = (1,)
    """Levels with self-attention, counted from 0; the middle always has it."""
    head_dim: Count | None = None
    """Channels of each attention head; by default there is one head, as in the paper."""
    groups: Annotated[Count, Added(8)] = 8
    """Groups of channels of each normalisation; the paper has 32."""
    stem: Annotated[Count | None, Added(None)] = None
    """Channels of the first convolution, and a quarter of the width of the time's embedding; by default those of the
    first level."""
    resample: Annotated[Literal["convolution", "block", "adm"], Added("convolution")] = "convolution"
    """How levels are halved and doubled: by a convolution, as in DDPM; by a residual block, as in BigGAN and DDPM++
    (block), where attention on the way up follows the last block of a level only; or by a residual block whose
    shortcut has no weights (adm), where attention follows every block."""
    rescale: Annotated[bool, Added(False)] = False
    """Divide each sum of a residual by the root of 2, as in DDPM++."""
    scale_shift: Annotated[bool, Added(False)] = False
    """Let the time and the condition scale and shift the features, as in ADM, in place of a shift alone."""
    remat: Annotated[bool, Added(False)] = False
    """Store only the inputs of blocks for the backward pass, which computes the rest again: less memory on
    accelerators, more arithmetic."""
    dropout: Share = 0.0
    """Dropout rate in training."""
    dtype: Precision = "float32"
    """Precision of the network's computation; parameters and losses stay float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """A perceptron with residual blocks, for points and other vectors."""

    name: ClassVar[str] = "mlp"
    hidden: Count = 128
    """Width."""
    blocks: Count = 1
    """Residual blocks."""
    dropout: Share = 0.0
    """Dropout rate in training."""
    dtype: Precision = "float32"
    """Precision of the network's computation; parameters and losses stay float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """A diffusion transformer, for images and for latents that are an image."""

    name: ClassVar[str] = "dit"
    features: Annotated[Count, Added(128)] = 128
    """Width."""
    layers: Annotated[Count, Added(4)] = 4
    """Blocks."""
    heads: Annotated[Count, Added(4)] = 4
    """Heads of each attention; they divide the width."""
    patch: Annotated[Count, Added(2)] = 2
    """Side of a patch, in pixels or latents."""
    dtype: Annotated[Precision, Added("float32")] = "float32"
    """Precision of the network's computation; parameters and losses stay float32."""
    remat: Annotated[bool, Added(False)] = False
    """Store only the inputs of blocks for the backward pass, which computes the rest again: less memory on
    accelerators, more arithmetic."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How samples are drawn."""

    method: Annotated[
        Literal["ancestral", "ddim", "euler", "heun", "dpmpp", "adaptive", "euler_maruyama", "predictor_corrector"],
        Sampling,
        arg(
            help="DDPM's random steps (ancestral), DDIM's steps, or a sampler of the continuous path: the "
            "probability-flow ODE by euler, heun, dpmpp (DPM-Solver++(2M), good in 15 steps) or adaptive steps, the "
            "reverse SDE by euler_maruyama or predictor_corrector."
        ),
    ] = "ancestral"
    steps: Annotated[
        Count, Sampling, arg(help="How many of the T diffusion steps the sampler visits; the paper visits all.")
    ] = 100
    variance: Annotated[
        Literal["transition", "posterior"],
        Sampling,
        arg(
            help="Variance of an ancestral step: transition, the variance of q(x_t | x_s), or posterior, the variance "
            "of q(x_s | x_t, x_0). The posterior variance is smaller, and better if fewer than T steps are visited."
        ),
    ] = "posterior"
    eta: Annotated[
        RateOrZero, Sampling, arg(help="Noise of ddim's steps: from 0 (none) to 1 (as much as the posterior).")
    ] = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyDiffusionConfig:
    """The fields that all diffusion models share."""

    data: DataConfig = DataConfig()
    train: TrainConfig
    optimizer: OptimizerConfig
    diffusion_steps: Count = 1_000
    """T: steps from the data to noise."""
    schedule: Literal["linear", "cosine", "quadratic"] = "linear"
    """Noise schedule: linear, as in DDPM; cosine (Nichol & Dhariwal 2021), which keeps more signal in the middle; or
    quadratic, whose betas have roots that grow linearly (Rombach et al. 2022; "scaled linear" in other libraries)."""
    beta_min: Rate | None = None
    """The first beta of a linear or quadratic schedule, times T; less than the last. By default 0.1, as in DDPM. If the
    data have few levels, the default is larger, up to 1: the first noise then has a standard deviation of a quarter
    level."""
    beta_max: Annotated[Rate | None, Added(None)] = None
    """The last beta of a linear or quadratic schedule, times T; less than T. By default 20, as in DDPM."""
    prediction: Literal["noise", "data", "velocity"] = "noise"
    """What the network predicts: eps (noise), x_0 (data), or v of Salimans & Ho 2022 (velocity)."""
    variance: Annotated[
        Literal["transition", "posterior"],
        Measuring,
        arg(
            help="Variance of the reverse process in the likelihood bound: transition, the variance of q(x_t | x_s), "
            "optimal if the data are N(0, 1); or posterior, the variance of q(x_s | x_t, x_0), optimal if the data "
            "are a single point."
        ),
    ] = "transition"
    bound_terms: Annotated[
        CountOrZero,
        Measuring,
        arg(help="Denoising terms of the bound that the evaluation draws for each example; 0 for all T - 1."),
    ] = 0
    validation_terms: Count = 20
    """Denoising terms of the bound that are drawn at a validation in training."""
    sampler: SamplerConfig = SamplerConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPMConfig(AnyDiffusionConfig):
    """Denoising diffusion in data space."""

    recipe: ClassVar[str] = "gm_jax.recipes.diffusion:build_ddpm"
    preset: PresetName = None
    network: UNetConfig | MLPConfig | None = None
    """By default a UNetConfig for images and an MLPConfig for other data."""
    learned_variance: Annotated[bool, Added(before=False)] = False
    """Learn the variance of the reverse process, between those of --variance transition and posterior, which then have
    no effect (Nichol & Dhariwal 2021); --sampler.method ancestral uses it."""
    bound_weight: Annotated[RateOrZero, Added(before=1e-3)] = 1e-3
    """Of a learned variance: weight of the bound in the loss."""
    loss_aware_times: Annotated[bool, Added(before=False)] = False
    """Of a learned variance: draw times in training by the size of their terms of the bound."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionalDDPMConfig(AnyDiffusionConfig):
    """Denoising diffusion with labels. Likelihoods, and samples without a label, are of the unconditional model."""

    recipe: ClassVar[str] = "gm_jax.recipes.diffusion:build_conditional_ddpm"
    preset: PresetName = None
    network: UNetConfig | MLPConfig | DiTConfig | None = None
    """By default a UNetConfig for images and an MLPConfig for other data."""
    learned_variance: Annotated[bool, Added(before=False)] = False
    """Learn the variance of the reverse process, between those of --variance transition and posterior, which then have
    no effect (Nichol & Dhariwal 2021); --sampler.method ancestral uses it."""
    bound_weight: Annotated[RateOrZero, Added(before=1e-3)] = 1e-3
    """Of a learned variance: weight of the bound in the loss."""
    guidance: Annotated[
        Guidance,
        Sampling,
        arg(
            help="w of classifier-free guidance for samples with a label: 0 for the conditional model, -1 for the "
            "unconditional one. Other libraries call 1 + w the guidance scale."
        ),
    ] = 1.0
    drop_label: Share = 0.1
    """Share of training examples whose label is hidden from the network."""
