"""Configuration of discrete diffusion by transition matrices."""

import dataclasses
from typing import ClassVar, Literal

from gm_jax.config import Count, CountOrZero, DataConfig, OptimizerConfig, RateOrZero, TrainConfig
from gm_jax.recipes.configs.diffusion import UNetConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class D3PMConfig:
    """D3PM of the levels of images, with a U-Net that predicts the logits of each level."""

    recipe: ClassVar[str] = "gm_jax.recipes.d3pm:build_d3pm"
    data: DataConfig = DataConfig()
    train: TrainConfig
    optimizer: OptimizerConfig
    network: UNetConfig = UNetConfig()
    """The network."""
    transitions: Literal["gaussian", "uniform"] = "gaussian"
    """gaussian: to near levels more often than to far ones, with a linear schedule; uniform: to all levels alike, with
    a cosine schedule."""
    diffusion_steps: Count = 100
    """T, the steps of the process and of a sample; the matrices of all steps are kept, T times the square of the
    levels."""
    cross_entropy: RateOrZero = 0.001
    """Weight of -log p(x_0 | x_t) beside each term of the bound; 0 trains on the bound alone."""
    bound_terms: CountOrZero = 0
    """Times that the bound is summed over, drawn evenly. 0 for all of them."""
    validation_terms: CountOrZero = 20
    """The same while training, at most all."""
