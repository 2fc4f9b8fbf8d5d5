"""Recipes of autoregressive models: dense ones of binary images, and models in raster order."""

import math
from typing import Any

import numpy as np

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.models import autoregressive, pixel_conditionals
from gm_jax.models import autoregressive_networks as ordered
from gm_jax.networks import made, pixelcnn, pixelrnn, transformer, wavenet
from gm_jax.networks.fvsbn import FVSBN
from gm_jax.networks.nade import NADE
from gm_jax.networks.pixelcnn_pp import PixelCNNPlusPlus
from gm_jax.ops.color_mixture import parameters_per_pixel
from gm_jax.plotting import autoregressive as plotting
from gm_jax.recipes import image_shapes, labels, likelihoods
from gm_jax.recipes.configs.autoregressive import (
    DenseConfig,
    FVSBNConfig,
    MADEConfig,
    NADEConfig,
    PixelCNNConfig,
    PixelCNNPlusPlusConfig,
    PixelRNNConfig,
    RasterConfig,
    TransformerConfig,
    WaveNetConfig,
)
from gm_jax.recipes.experiment import Experiment
from gm_jax.recipes.optimizers import make_optimizer


def build_fvsbn(config: FVSBNConfig, spec: Spec) -> Experiment:
    """Builds D logistic regressions, each pixel on the pixels before it."""
    orders = _distinct_orders(config, spec)
    network = FVSBN(orders.shape[1], _num_classes(config, spec))
    return _dense_experiment(config, spec, ordered.masked_network(network, orders, orders))


def build_nade(config: NADEConfig, spec: Spec) -> Experiment:
    """Builds D conditionals that share the weights of one hidden layer."""
    orders = _distinct_orders(config, spec)
    network = NADE(orders.shape[1], config.hidden, _num_classes(config, spec))
    return _dense_experiment(config, spec, ordered.masked_network(network, orders, orders))


def build_made(config: MADEConfig, spec: Spec) -> Experiment:
    """Builds a perceptron whose masks forbid looking ahead; each ordering has a set of masks."""
    orders = _pixel_orders(config, spec)
    masks = made.mask_sets(orders, config.hidden, seed=config.train.seed)
    settings = {"direct": config.direct, "dropout": config.dropout}
    network = made.MADE(orders.shape[1], config.hidden, _num_classes(config, spec), **settings)
    return _dense_experiment(config, spec, ordered.masked_network(network, masks, orders))


def build_pixelcnn(config: PixelCNNConfig, spec: Spec) -> Experiment:
    """Builds a convolutional network whose masks forbid looking ahead."""
    # The blocks of the plain network narrow its features to half of them.
    shape = image_shapes.pixel_shape(spec, features=config.features if config.gated else config.features // 2)
    if config.first_size < 3 or config.first_size % 2 == 0:
        raise UserError(f"--first-size {config.first_size} is not an odd number of at least 3: use 3, 5, 7 ...")
    network = pixelcnn.GatedPixelCNN if config.gated else pixelcnn.PixelCNN
    module = network(
        shape,
        **_raster_settings(config, spec),
        features=config.features,
        layers=config.layers,
        first_size=config.first_size,
        dropout=config.dropout,
    )
    return _raster_experiment(config, spec, ordered.image_network(module))


def build_pixelcnn_pp(config: PixelCNNPlusPlusConfig, spec: Spec) -> Experiment:
    """Builds two streams of gated blocks at several scales, and a mixture of logistics for each pixel."""
    shape = image_shapes.pixel_shape(spec, features=config.features)
    settings = _raster_settings(config, spec)
    levels, num_outputs, of_each_color = settings["levels"], settings["outputs_per_dim"], pixel_conditionals.one_color
    if config.output == "logistic_mixture":
        num_outputs = parameters_per_pixel(channels=shape[2], components=config.components)
        of_each_color = pixel_conditionals.mixture_of_colors(levels)
    elif shape[2] > 1:
        raise UserError(
            f"--output {config.output} does not order the {shape[2]} channels of {spec.name}: use --output "
            "logistic_mixture, or experiments.pixelcnn."
        )
    module = PixelCNNPlusPlus(
        shape,
        levels,
        num_outputs,
        settings["num_classes"],
        features=config.features,
        blocks=config.blocks,
        scales=config.scales,
        dropout=config.dropout,
    )
    return _raster_experiment(config, spec, pixel_conditionals.whole_pixel_network(module, of_each_color))


def build_pixelrnn(config: PixelRNNConfig, spec: Spec) -> Experiment:
    """Builds a stack of two-dimensional LSTMs."""
    shape = image_shapes.pixel_shape(spec, features=config.hidden)
    module = pixelrnn.PixelRNN(
        shape,
        **_raster_settings(config, spec),
        lstm={"diagonal": pixelrnn.DiagonalBiLSTM, "row": pixelrnn.RowLSTM}[config.lstm],
        hidden=config.hidden,
        layers=config.layers,
    )
    return _raster_experiment(config, spec, ordered.image_network(module))


def build_wavenet(config: WaveNetConfig, spec: Spec) -> Experiment:
    """Builds a stack of gated, dilated causal convolutions with skip connections."""
    if config.kernel_size < 2:
        raise UserError("--kernel-size 1: a causal convolution of one tap sees no past. Use --kernel-size 2 or more.")
    module = wavenet.WaveNet(
        **_raster_settings(config, spec),
        features=config.features,
        skip=config.skip,
        dilations=config.dilations,
        kernel_size=config.kernel_size,
    )
    return _raster_experiment(config, spec, ordered.sequence_network(module, length=math.prod(spec.shape)))


def build_transformer(config: TransformerConfig, spec: Spec) -> Experiment:
    """Builds layers of masked self-attention, in which each pixel sees all pixels before it."""
    if config.features % config.heads:
        raise UserError(f"--heads {config.heads} do not divide --features {config.features}: use a divisor.")
    module = transformer.CausalTransformer(
        spec.shape,
        **_raster_settings(config, spec),
        features=config.features,
        heads=config.heads,
        layers=config.layers,
        dropout=config.dropout,
    )
    return _raster_experiment(config, spec, ordered.sequence_network(module, length=module.num_dims))


def _dense_experiment(config: DenseConfig, spec: Spec, network: ordered.OrderedNetwork) -> Experiment:
    observation, facts = likelihoods.binary(spec, config.binarization)
    likelihood = ordered.bernoulli(observation.prepare, levels=image_shapes.num_levels(spec))
    return _experiment(config, spec, network, likelihood, facts)


def _raster_experiment(config: RasterConfig, spec: Spec, network: ordered.OrderedNetwork) -> Experiment:
    likelihood, facts = likelihoods.pixel_likelihood(
        spec, output=config.output, components=config.components, binarization=config.binarization
    )
    return _experiment(config, spec, network, likelihood, facts)


def _experiment(
    config: DenseConfig | RasterConfig,
    spec: Spec,
    network: ordered.OrderedNetwork,
    likelihood: ordered.PixelLikelihood,
    facts: dict[str, Any],
) -> Experiment:
    family = autoregressive.Autoregressive(
        network=network, likelihood=likelihood, shape=spec.shape, num_classes=_num_classes(config, spec)
    )
    return Experiment(
        family.model,
        family=family,
        optimizers={"autoregressive": make_optimizer(config.optimizer, num_steps=config.train.steps)},
        pictures=plotting.grids(family, spec.shape, levels=spec.levels),
        sample_mean=family.sample_mean if likelihood.measure == "binary" else None,
        settings=facts,
        observation=likelihoods.observation(likelihood, spec),
        uses_labels=config.conditional,
    )


def _num_classes(config: DenseConfig | RasterConfig, spec: Spec) -> int | None:
    """Returns how many labels the model is conditioned on, or None."""
    return labels.num_classes(spec) if config.conditional else None


def _pixel_orders(config: DenseConfig, spec: Spec) -> np.ndarray:
    """Returns [K, D], the pixel at each position of each ordering."""
    if spec.levels is None:
        raise UserError(f"{spec.name} is not made of pixels that could be binary: choose a --data.name of images.")
    in_raster_order = np.tile(np.arange(np.prod(spec.shape)), (config.orderings, 1))
    if config.order == "raster":
        return in_raster_order
    return np.random.default_rng(config.train.seed).permuted(in_raster_order, axis=1)


def _distinct_orders(config: DenseConfig, spec: Spec) -> np.ndarray:
    """Returns `_pixel_orders` for networks that differ only by their ordering; MADE's differ by their masks too."""
    if config.orderings > 1 and config.order == "raster":
        raise UserError(f"--orderings {config.orderings} has no effect with a fixed order: use --order random.")
    return _pixel_orders(config, spec)


def _raster_settings(config: RasterConfig, spec: Spec) -> dict[str, Any]:
    """Returns what a network must know of its input levels and its outputs."""
    levels = 2 if config.output == "bernoulli" else image_shapes.num_levels(spec)
    outputs = {"bernoulli": 1, "categorical": levels, "logistic_mixture": 3 * config.components}[config.output]
    return {"levels": levels, "outputs_per_dim": outputs, "num_classes": _num_classes(config, spec)}
