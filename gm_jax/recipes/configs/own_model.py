"""The configuration of a model of your own, whose networks only Python has."""

import dataclasses
from typing import ClassVar

from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnModelConfig:
    """How to train a family or a `Model` that was made in Python."""

    recipe: ClassVar[str] = "gm_jax.recipes.own_model:build_own_model"
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
