"""Configuration of masked diffusion."""

import dataclasses
from typing import ClassVar, Literal

from gm_jax.config import Binarization, Count, CountOrZero, DataConfig, OptimizerConfig, Share, TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedDiffusionConfig:
    """Masked diffusion of pixels or of the levels of a sequence, with a transformer that sees all visible ones."""

    recipe: ClassVar[str] = "gm_jax.recipes.masked:build_masked_diffusion"
    data: DataConfig = DataConfig()
    train: TrainConfig
    optimizer: OptimizerConfig
    output: Literal["bernoulli", "categorical", "logistic_mixture"] = "bernoulli"
    """p(x_i | visible): bernoulli for binarised images, categorical or logistic_mixture for levels."""
    components: Count = 10
    """Components of the logistic mixture."""
    binarization: Binarization | None = None
    """For bernoulli: static (as shipped), dynamic (resampled at each step) or threshold (at half). By default static if
    the data are binary, else dynamic."""
    features: Count = 64
    """Width of the layers; the perceptrons are four times wider."""
    heads: Count = 4
    """Heads of the attention; they divide the width."""
    layers: Count = 4
    """Layers, each of attention and a perceptron."""
    dropout: Share = 0.0
    """Dropout rate of the embeddings and of each layer's updates in training."""
    sampling_steps: CountOrZero = 0
    """Steps of a sample; fewer than dimensions draw several at once, independently. 0 for one dimension at a time."""
    bound_terms: CountOrZero = 0
    """Numbers of masked dimensions that the bound is summed over, drawn for each example. 0 for all of them."""
    validation_terms: CountOrZero = 20
    """The same while training, at most all."""
    mixture_orders: Count = 10
    """Orders whose mixture bounds the likelihood more tightly."""
