"""Configurations of models that make a sample in one step: MeanFlow, and consistency models."""

import dataclasses
from typing import Annotated, ClassVar

from tyro.conf import arg

from gm_jax.config import (
    Added,
    Count,
    DataConfig,
    Guidance,
    OptimizerConfig,
    Rate,
    RateOrZero,
    Sampling,
    Share,
    TrainConfig,
)
from gm_jax.recipes.configs.diffusion import MLPConfig, UNetConfig
from gm_jax.recipes.configs.score import ODELikelihoodConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyOneStepConfig:
    """The fields that both share."""

    data: DataConfig = DataConfig()
    train: TrainConfig
    optimizer: OptimizerConfig
    network: UNetConfig | MLPConfig | None = None
    """By default a UNetConfig for images and an MLPConfig for other data."""
    sigma_data: Rate | None = None
    """Standard deviation of the data, which scales the network's input; by default 0.5 for images, which lie in
    [-1, 1], and 2 for points."""
    labels: bool = False
    """Train with labels as well: samples without a label are of the unconditional model."""
    drop_label: Share = 0.1
    """Share of training examples whose label is hidden from the network."""
    sampling_steps: Annotated[Count, Sampling, arg(help="Steps from noise to data, one network evaluation each.")] = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanFlowConfig(AnyOneStepConfig):
    """Flow matching with mean velocities, for samples in one step."""

    recipe: ClassVar[str] = "gm_jax.recipes.one_step:build_meanflow"
    log_normal_mean: float = -0.4
    """Times are drawn with a normal log s / a: its mean."""
    log_normal_std: Rate = 1.0
    """And its standard deviation."""
    same_time: Share = 0.75
    """Share of training examples with two equal times, which is flow matching. The paper has 0.75 with these times and
    power 1 for ImageNet; for CIFAR-10 0.25, times of mean -2 and deviation 2, and power 0.75."""
    guidance: Annotated[Guidance, Added(before=0.0)] = 0.0
    """w of classifier-free guidance, which is trained: samples of a label are guided, and need no further evaluation. 0
    for the conditional model; other libraries call 1 + w the guidance scale."""
    power: RateOrZero = 0.75
    """An example with the squared error L has the weight 1 / (L + 0.01)^power; 0 for the squared error as it is."""
    own_direction: Annotated[bool, Added(before=False)] = False
    """Take the derivative in the loss along the network's own velocity, as in improved MeanFlow, and not along that of
    one pair of data and noise, which is noisier. A step computes the network once more."""
    likelihood: ODELikelihoodConfig = ODELikelihoodConfig()
    validation_times: Count = 20
    """Times of the variational bound that are drawn at a validation in training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencyConfig(AnyOneStepConfig):
    """An EDM, and a consistency model that is distilled from it in the same run."""

    recipe: ClassVar[str] = "gm_jax.recipes.one_step:build_consistency"
    distillation: Share = 0.5
    """Share of the steps, the last ones, that distil the EDM."""
    times: Count = 18
    """N: times on the path, between neighbours of which the model must be consistent; at least 2."""
    guidance: Guidance = 0.0
    """w of classifier-free guidance of the EDM that is distilled: the model learns guided samples of a label."""
    sigma_min: Rate | None = None
    """The least noise; by default 0.002."""
    sigma_max: Rate | None = None
    """The most noise; by default 80."""
