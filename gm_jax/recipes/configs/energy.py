"""The configurations of deep energy-based models."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from gm_jax.config import (
    AdamConfig,
    Added,
    Count,
    CountFromTwo,
    CountOrZero,
    DataConfig,
    Measuring,
    OptimizerConfig,
    Rate,
    RateOrZero,
    Sampling,
    Share,
    TrainConfig,
    Widths,
)


@dataclasses.dataclass(frozen=True)
class ChainsConfig:
    """The Langevin chains of training and sampling."""

    steps: Count = 40
    """Steps of each chain in a training step."""
    step_size: Rate = 0.02
    """Step size e of x - e/2 dE(x) + sqrt(e T) z."""
    temperature: Rate = 1.0
    """T: 1 samples the model. Other chains train and sample another density, so that there is no likelihood."""
    persistent: CountOrZero = 10_000
    """Chains that persist from step to step, a multiple of the batch; 0 starts all chains from noise at each step."""
    restart: Share = 0.05
    """Share of the persistent chains that start again from noise when they are visited."""
    clip_gradient: Rate | None = None
    """Largest absolute value of an entry of the energy's gradient in a chain; by default any. With it there is no
    likelihood, because such chains sample no known density."""
    sampling_steps: Annotated[Count, Sampling, arg(help="Steps of a chain from noise to a sample.")] = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyEnergyConfig:
    """The fields that all deep energies share."""

    data: DataConfig = DataConfig()
    train: TrainConfig
    network: Literal["conv", "mlp"] | None = None
    """conv for images, mlp for points or for images as vectors; by default conv if the data are images."""
    features: Widths = (16, 32)
    """conv: channels of each stage, which halves both sides."""
    hidden: Widths = (128, 128, 128)
    """mlp: widths of the hidden layers."""
    spectral_norm: bool = False
    """Divide each kernel by its largest singular value."""
    base_std: Rate | None = None
    """Standard deviation of the normal density that the energy is added to; by default 4 for points and 1 for
    images."""
    temperatures: Annotated[
        CountFromTwo,
        Measuring,
        arg(help="Temperatures of annealed importance sampling, which estimates log Z of images."),
    ] = 500
    runs: Annotated[CountFromTwo, Measuring, arg(help="Chains of annealed importance sampling.")] = 100
    leapfrog_step: Annotated[
        Rate, Measuring, arg(help="Step size of Hamiltonian Monte Carlo in annealed importance sampling.")
    ] = 0.1
    validation_temperatures: Count = 100
    """Temperatures for the validations of a training run; few temperatures flatter the model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EBMConfig(AnyEnergyConfig):
    """A deep energy-based model."""

    recipe: ClassVar[str] = "gm_jax.recipes.energy:build_ebm"
    optimizer: OptimizerConfig
    penalty: RateOrZero = 0.0
    """Weight of the squared energies in the loss."""
    chains: ChainsConfig = ChainsConfig()
    objective: Annotated[Literal["contrastive", "nce"], Added("contrastive")] = "contrastive"
    """contrastive: the gradient of the likelihood, from chains. nce: a classifier of data and noise, which learns log Z
    without chains."""
    noise: Annotated[Literal["normal", "flow"], Added("normal")] = "normal"
    """nce: density of the noise, which is trained on the data too."""
    noise_ratio: Annotated[Count, Added(1)] = 1
    """nce: samples of the noise for each example of the data."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JEMConfig(AnyEnergyConfig):
    """A classifier that is an energy-based model; the data have labels."""

    recipe: ClassVar[str] = "gm_jax.recipes.jem:build_jem"
    optimizer: OptimizerConfig
    class_weight: RateOrZero = 1.0
    """Weight of the cross-entropy; 1 for the log of the joint probability."""
    penalty: RateOrZero = 0.0
    """Weight of the squared energies in the loss."""
    chains: ChainsConfig = ChainsConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinimaxEBMConfig(AnyEnergyConfig):
    """An energy-based model and a flow as two players."""

    recipe: ClassVar[str] = "gm_jax.recipes.minimax_energy:build_minimax_ebm"
    energy: AdamConfig
    generator: AdamConfig
    generator_steps: Count = 1
    """Updates of the generator for each update of the energy."""
    slope_penalty: RateOrZero = 0.001
    """Weight of the squared slope of the energy at the data."""
    bound_samples: Annotated[
        Count, Measuring, arg(help="Samples of the generator, for the bound of log p from above.")
    ] = 10_000
