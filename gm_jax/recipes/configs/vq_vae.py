"""The configuration of a VQ-VAE: an autoencoder, its quantiser, and a transformer of the codes."""

import dataclasses
from typing import ClassVar, Literal

from gm_jax.config import (
    AdamConfig,
    Binarization,
    Count,
    DataConfig,
    Decay,
    OptimizerConfig,
    Precision,
    RateOrZero,
    Share,
    TrainConfig,
    Widths,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeAutoencoderConfig:
    """The first stage, a convolutional autoencoder."""

    # The default of `steps`: this share of the run, and at most so many.
    most_steps: ClassVar[int] = 4_000
    share: ClassVar[tuple[int, int]] = (1, 3)
    steps: Count | None = None
    """How many of --train.steps train the autoencoder; the others train the model of its codes. By default a third, and
    at most 4,000."""
    optimizer: AdamConfig = AdamConfig(warmup_steps=None)
    patch: Count = 2
    """Side of the squares of pixels whose numbers are the channels of the first level: 1, 2 or 4."""
    features: Widths = (16, 32)
    """Channels of each level; each level except the last halves the sides."""
    blocks: Count = 1
    """Residual blocks of each level."""
    groups: Count = 8
    """Groups of channels of each normalisation."""
    attention: bool = False
    """Self-attention at the smallest level."""
    dtype: Precision = "float32"
    """Precision of the networks' computation; parameters and losses stay float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodebookConfig:
    """Codes that are moving averages of the encoder's outputs."""

    name: ClassVar[str] = "codebook"
    codes: Count = 64
    """K, the number of codes; a multiple of the devices with --train.parallel pmap."""
    dim: Count = 8
    """Numbers of the vector of a code."""
    decay: Decay = 0.99
    """Decay of the moving averages of the codes."""
    restart_below: RateOrZero = 0.1
    """Restart a code at an output of the encoder if it is used less often than this share of 1 / K; 0 for never."""
    commitment: RateOrZero = 0.25
    """beta, weight of the squared distance of the encoder's outputs from their codes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FSQConfig:
    """Finite scalar quantisation: each number of a vector is rounded to a few levels."""

    name: ClassVar[str] = "fsq"
    levels: Widths = (8, 8)
    """Levels of each number, at least 2; the number of codes is their product. The paper advises 5 or more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodePriorConfig:
    """The second stage, a causal transformer of the codes of an image."""

    features: Count = 64
    """Width of the layers; the perceptrons are four times wider."""
    heads: Count = 4
    """Heads of the attention; they divide the width."""
    layers: Count = 3
    """Layers, each of attention and a perceptron."""
    dropout: Share = 0.2
    """Dropout rate of the embeddings and of each layer's updates in training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VQVAEConfig:
    """A VQ-VAE and an autoregressive model of its codes, which --optimizer trains."""

    recipe: ClassVar[str] = "gm_jax.recipes.vq_vae:build_vq_vae"
    data: DataConfig = DataConfig()
    train: TrainConfig
    optimizer: OptimizerConfig
    autoencoder: CodeAutoencoderConfig = CodeAutoencoderConfig()
    quantizer: CodebookConfig | FSQConfig = CodebookConfig()
    """By default a codebook."""
    prior: CodePriorConfig = CodePriorConfig()
    conditional: bool = False
    """Condition the codes on the class label. The reported likelihood is of the mixture of all classes."""
    decoder: Literal["bernoulli", "discretized_logistic"] | None = None
    """p(x|c): bernoulli for binarised images, discretized_logistic for levels. By default bernoulli if the data are
    binary, else discretized_logistic: noise of a binarisation would take most of the codes."""
    binarization: Binarization | None = None
    """For bernoulli: static (as shipped), dynamic (resampled at each step) or threshold (at half). By default static if
    the data are binary, else dynamic."""
