"""Configurations of autoregressive models: dense ones of binary images, and models in raster order."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from gm_jax.config import Added, Binarization, Count, DataConfig, OptimizerConfig, Share, TrainConfig, Widths
from gm_jax.recipes.configs.preset import PresetName


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """The fields that all dense models share; each takes binary images as one row."""

    data: DataConfig = DataConfig()
    train: TrainConfig
    optimizer: OptimizerConfig
    binarization: Binarization | None = None
    """How pixels become binary: static (as in the data set), dynamic (resampled at each step) or threshold (at half).
    By default static if the data are binary, else dynamic."""
    order: Literal["raster", "random"] = "raster"
    """Order in which the pixels of an image are generated: row by row, or random, drawn once from the training seed."""
    orderings: Count = 1
    """How many orderings share the parameters. The model is the mixture of them all."""
    conditional: bool = False
    """Condition on the class label. The reported likelihood is of the mixture of all classes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FVSBNConfig(DenseConfig):
    """D logistic regressions, each pixel on the pixels before it."""

    recipe: ClassVar[str] = "gm_jax.recipes.autoregressive:build_fvsbn"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NADEConfig(DenseConfig):
    """D conditionals that share the weights of one hidden layer of sigmoid units."""

    recipe: ClassVar[str] = "gm_jax.recipes.autoregressive:build_nade"
    hidden: Count = 500
    """Hidden units."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MADEConfig(DenseConfig):
    """A perceptron whose masks forbid looking ahead; the paper's best has 2 x 8000 units and 32 random orderings."""

    recipe: ClassVar[str] = "gm_jax.recipes.autoregressive:build_made"
    preset: PresetName = None
    hidden: tuple[Count, ...] = (500,)
    """Widths of the hidden layers; without any it is an FVSBN."""
    direct: bool = True
    """Direct connections from the pixels to the logits, past the hidden layers."""
    dropout: Annotated[Share, Added(0.0)] = 0.0
    """Dropout rate of the hidden units in training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RasterConfig:
    """The fields that all models in raster order share."""

    data: DataConfig = DataConfig()
    train: TrainConfig
    optimizer: OptimizerConfig
    output: Literal["bernoulli", "categorical", "logistic_mixture"] = "bernoulli"
    """p(x_i | x_<i): bernoulli for binarised images, categorical or logistic_mixture for levels."""
    components: Count = 10
    """Components of the logistic mixture."""
    binarization: Binarization | None = None
    """For bernoulli: static (as shipped), dynamic (resampled at each step) or threshold (at half). By default static if
    the data are binary, else dynamic."""
    conditional: bool = False
    """Condition on the class label. The reported likelihood is of the mixture of all classes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelCNNConfig(RasterConfig):
    """A small PixelCNN; the papers use 64 to 384 features and 8 to 15 layers."""

    recipe: ClassVar[str] = "gm_jax.recipes.autoregressive:build_pixelcnn"
    preset: PresetName = None
    gated: bool = True
    """Two stacks of gated layers, which see all pixels before the current one; else residual blocks, which have a blind
    spot."""
    features: Count = 32
    """Width of the layers."""
    layers: Count = 4
    """Layers after the first."""
    first_size: Count = 7
    """Size of the first layer's kernel, an odd number; the other kernels are 3 x 3."""
    dropout: Annotated[Share, Added(0.0)] = 0.0
    """Dropout rate of each layer's update in training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelCNNPlusPlusConfig(RasterConfig):
    """A small PixelCNN++; the paper's has 160 features, 5 blocks and 3 scales."""

    recipe: ClassVar[str] = "gm_jax.recipes.autoregressive:build_pixelcnn_pp"
    preset: PresetName = None
    output: Literal["bernoulli", "categorical", "logistic_mixture"] = "logistic_mixture"
    """p(x_i | x_<i): logistic_mixture for levels and colours, as in the paper; for grey images bernoulli or categorical
    too."""
    features: Count = 32
    """Width of both streams."""
    blocks: Count = 1
    """Residual blocks of each stream and scale on the way down."""
    scales: Count = 2
    """Sizes of the image that it works at, each half of the one before."""
    dropout: Share = 0.5
    """Dropout rate of each block in training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelRNNConfig(RasterConfig):
    """A small PixelRNN; the paper's for binary MNIST has 7 layers of 16 units."""

    recipe: ClassVar[str] = "gm_jax.recipes.autoregressive:build_pixelrnn"
    preset: PresetName = None
    lstm: Literal["diagonal", "row"] = "diagonal"
    """diagonal: both directions, sees all pixels before the current one; row: sees a triangle above it."""
    hidden: Count = 16
    """Units of each LSTM."""
    layers: Count = 3
    """Number of LSTMs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WaveNetConfig(RasterConfig):
    """A small WaveNet: six layers, whose receptive field is a whole digit."""

    recipe: ClassVar[str] = "gm_jax.recipes.autoregressive:build_wavenet"
    output: Literal["bernoulli", "categorical", "logistic_mixture"] = "categorical"
    """p(x_t | x_<t): categorical, as in the paper, or logistic_mixture for levels; bernoulli for binarised images."""
    features: Count = 32
    """Residual channels, and channels of the gates."""
    skip: Count = 128
    """Channels of the skip connections."""
    dilations: Widths = (1, 2, 4, 8, 16, 32)
    """Dilation of each layer; the receptive field is 1 + (kernel size - 1) times their sum."""
    kernel_size: Count = 2
    """Taps of each convolution."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig(RasterConfig):
    """A small causal transformer of pixels, or of the levels of a sequence."""

    recipe: ClassVar[str] = "gm_jax.recipes.autoregressive:build_transformer"
    features: Count = 64
    """Width of the layers; the perceptrons are four times wider."""
    heads: Count = 4
    """Heads of the attention; they divide the width."""
    layers: Count = 3
    """Layers, each of attention and a perceptron."""
    dropout: Share = 0.0
    """Dropout rate of the embeddings and of each layer's updates in training."""
