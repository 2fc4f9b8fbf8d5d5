"""Configurations of variational autoencoders."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from gm_jax.config import (
    Added,
    Binarization,
    Count,
    DataConfig,
    Measuring,
    OptimizerConfig,
    Precision,
    RateOrZero,
    TrainConfig,
    Widths,
)
from gm_jax.recipes.configs.preset import PresetName


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyVAEConfig:
    """All fields of a VAE except those of its objective. The network has the size of Burda et al. (2016)."""

    data: DataConfig = DataConfig()
    train: TrainConfig
    optimizer: OptimizerConfig
    network: Literal["mlp", "conv"] = "mlp"
    """Fully connected, or convolutional (for images whose sides are multiples of 4)."""
    hidden: Widths | None = None
    """Widths of the fully connected hidden layers, by default 500 500; or channels of the convolutional stages, by
    default 32 64."""
    activation: Literal["silu", "relu", "tanh"] = "silu"
    """Activation after each hidden layer."""
    latent_dim: Count = 50
    """Dimensions of z."""
    conditional: Annotated[bool, Added(False)] = False
    """Encoder and decoder also see the label. Likelihoods are of p(x), summed over the classes; a sample without a
    label has one drawn."""
    decoder: Literal["bernoulli", "normal", "discretized_logistic"] | None = None
    """p(x|z): bernoulli for binarised images, normal for densities, discretized_logistic for levels. By default
    bernoulli for images of one channel, discretized_logistic for other data with levels, normal for points."""
    binarization: Binarization | None = None
    """For bernoulli: static (as shipped), dynamic (resampled at each step) or threshold (at half). By default static if
    the data are binary, else dynamic."""
    log_var: float | None = None
    """For normal: a fixed log-variance; by default it is learned."""
    importance_samples: Annotated[
        Count, Measuring, arg(help="K of the importance-weighted bound that the evaluation reports.")
    ] = 500
    validation_samples: Count = 10
    """K of the bound that chooses the best checkpoint."""
    dtype: Precision = "float32"
    """Precision of the networks' computation; parameters and losses stay float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAEConfig(AnyVAEConfig):
    """A VAE trained on the ELBO."""

    recipe: ClassVar[str] = "gm_jax.recipes.vae:build_vae"
    beta: RateOrZero = 1.0
    """Weight of the KL term; 1 gives the ELBO."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class IWAEConfig(AnyVAEConfig):
    """A VAE trained on the importance-weighted bound of K samples."""

    recipe: ClassVar[str] = "gm_jax.recipes.vae:build_iwae"
    preset: PresetName = None
    num_samples: Count = 10
    """K of the bound that training maximises."""
    num_resampled: Count | None = None
    """Compute the gradient through this many of the K samples, drawn by their weights: cheaper and noisier. By default
    all K."""
