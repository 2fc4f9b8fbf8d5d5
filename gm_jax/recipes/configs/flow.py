"""Configurations of normalising flows."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from gm_jax.config import Added, Count, DataConfig, OptimizerConfig, Precision, Rate, RateOrZero, TrainConfig, Widths
from gm_jax.recipes.configs.preset import PresetName


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyFlowConfig:
    """The fields that all flows share."""

    data: DataConfig = DataConfig()
    train: TrainConfig
    optimizer: OptimizerConfig
    alpha: RateOrZero = 0.0
    """Margin of the logit that takes dequantised levels to the real line: its argument stays between alpha and
    1 - alpha. 0 for no logit. Points have no logit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CouplingFlowConfig(AnyFlowConfig):
    """The fields that all flows of couplings share."""

    dtype: Precision = "float32"
    """Precision of the networks inside the couplings; parameters, latents and log-determinants stay float32. In
    bfloat16 the inverse is less exact: to 0.02 at worst for a Glow of 16 steps, compared with 3e-5 in float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NICEConfig(CouplingFlowConfig):
    """Additive couplings; the paper has four, with perceptrons of five layers of 1000 units for MNIST."""

    recipe: ClassVar[str] = "gm_jax.recipes.flow:build_nice"
    preset: PresetName = None
    hidden: Widths = (256, 256, 256)
    """Widths of each coupling's perceptron."""
    couplings: Count = 4
    """Couplings, which alternate between two halves; from three on, every dimension can depend on every other."""
    prior: Literal["logistic", "normal"] = "logistic"
    """Density of the latent, in training and in sampling."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealNVPConfig(CouplingFlowConfig):
    """Affine couplings. Images: several scales of residual networks. Other data: pairs of couplings of perceptrons."""

    recipe: ClassVar[str] = "gm_jax.recipes.flow:build_realnvp"
    preset: PresetName = None
    alpha: RateOrZero = 0.05
    """Margin of the logit that takes dequantised levels to the real line: its argument stays between alpha and
    1 - alpha. 0 for no logit. Points have no logit."""
    network: Literal["conv", "mlp"] | None = None
    """conv for images, mlp for vectors; by default conv if the data are images."""
    bound: Rate = 2.0
    """Bound of the couplings' log-scales."""
    features: Count = 32
    """conv: channels of the residual networks."""
    blocks: Count = 2
    """conv: residual blocks of each network."""
    weight_norm: Annotated[bool, Added(False)] = False
    """conv: learn the direction and the length of each kernel separately, as in the paper."""
    scales: Count | None = None
    """conv: scales; each except the last halves the sides. By default as many as keep the sides even and at least 4."""
    hidden: Widths = (64, 64)
    """mlp: widths of each coupling's perceptron."""
    pairs: Count = 8
    """mlp: pairs of couplings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GlowConfig(CouplingFlowConfig):
    """A small Glow; the paper has K = 32 and 512 features."""

    recipe: ClassVar[str] = "gm_jax.recipes.flow:build_glow"
    preset: PresetName = None
    alpha: RateOrZero = 0.05
    """Margin of the logit that takes dequantised levels to the real line: its argument stays between alpha and
    1 - alpha. 0 for no logit, as in the paper; the logit speeds up learning the black of digits."""
    steps: Count = 8
    """K: steps of actnorm, 1x1 convolution and coupling at each scale."""
    scales: Count | None = None
    """L: scales; each halves the sides. By default as many as keep the sides at least 2, and at most three."""
    features: Count = 64
    """Channels of the couplings' networks."""
    bound: Rate = 2.0
    """Bound of the log-scales of couplings and conditional priors."""
    remat: Annotated[bool, Added(False)] = False
    """Store only the inputs of steps for the backward pass, which computes the rest again: less memory, more
    arithmetic."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplineFlowConfig(CouplingFlowConfig):
    """Spline couplings for points and tables; images become vectors."""

    recipe: ClassVar[str] = "gm_jax.recipes.flow:build_spline_flow"
    hidden: Widths = (64, 64)
    """Widths of each coupling's perceptron."""
    blocks: Count = 3
    """Blocks of an actnorm, a linear map (for more than two dimensions) and two couplings."""
    bins: Count = 16
    """Bins of each spline."""
    bound: Rate = 3.0
    """Half the width of the interval that the splines bend, in standard deviations of an actnorm's first batch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoregressiveFlowConfig(AnyFlowConfig):
    """Affine maps of each dimension given those before it, for points and tables; images become vectors."""

    recipe: ClassVar[str] = "gm_jax.recipes.flow:build_autoregressive_flow"
    alpha: RateOrZero = 0.05
    """Margin of the logit that takes dequantised levels to the real line: its argument stays between alpha and
    1 - alpha. 0 for no logit. Points have no logit."""
    inverted: bool = False
    """An inverse autoregressive flow (IAF), which samples in one pass of its networks and takes as many steps as there
    are dimensions for the density of data, in place of a masked autoregressive flow (MAF), for which it is the other
    way round."""
    hidden: Widths = (64, 64)
    """Widths of each layer's perceptron."""
    blocks: Count = 4
    """Blocks of an actnorm and two layers, one in the order of the dimensions and one in reverse."""
    bound: Rate = 2.0
    """Bound of the log-scales."""
