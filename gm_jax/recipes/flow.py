"""Recipes of normalising flows."""

import math

import flax.linen as nn

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.models import flow
from gm_jax.networks import realnvp
from gm_jax.networks.autoregressive_flow import AutoregressiveFlow
from gm_jax.networks.glow import Glow
from gm_jax.networks.nice import NICE
from gm_jax.networks.spline_flow import SplineFlow
from gm_jax.plotting import flow as plotting
from gm_jax.recipes import image_shapes
from gm_jax.recipes.configs.flow import (
    AnyFlowConfig,
    AutoregressiveFlowConfig,
    GlowConfig,
    NICEConfig,
    RealNVPConfig,
    SplineFlowConfig,
)
from gm_jax.recipes.experiment import DensityPicture, Experiment
from gm_jax.recipes.optimizers import make_optimizer

_PRIORS = {"normal": flow.standard_normal, "logistic": flow.standard_logistic}


def build_nice(config: NICEConfig, spec: Spec) -> Experiment:
    """Builds additive couplings; each dimension of the data is in one of two halves."""
    _check_halves(spec)
    network = NICE(spec.shape, config.hidden, config.couplings, dtype=config.dtype)
    return _experiment(config, spec, network, prior=config.prior)


def build_realnvp(config: RealNVPConfig, spec: Spec) -> Experiment:
    """Builds affine couplings, of images in several scales or of vectors."""
    if (config.network or ("conv" if image_shapes.is_image(spec) else "mlp")) == "mlp":
        _check_halves(spec)
        network = realnvp.RealNVP(spec.shape, config.hidden, config.pairs, config.bound, dtype=config.dtype)
        return _experiment(config, spec, network)
    shape = image_shapes.image_shape(spec)
    scales = config.scales or 1 + image_shapes.count_halvings(shape, smallest=4)
    network = realnvp.ImageRealNVP(
        shape, scales, config.features, config.blocks, config.bound, config.weight_norm, config.dtype
    )
    return _experiment(config, spec, network)


def build_glow(config: GlowConfig, spec: Spec) -> Experiment:
    """Builds a Glow in several scales."""
    shape = image_shapes.image_shape(spec)
    scales = config.scales or max(1, min(3, image_shapes.count_halvings(shape, smallest=2)))
    network = Glow(shape, scales, config.steps, config.features, config.bound, config.dtype, config.remat)
    return _experiment(config, spec, network)


def build_spline_flow(config: SplineFlowConfig, spec: Spec) -> Experiment:
    """Builds a flow of spline couplings."""
    _check_halves(spec)
    network = SplineFlow(spec.shape, config.hidden, config.blocks, config.bins, config.bound, dtype=config.dtype)
    return _experiment(config, spec, network)


def build_autoregressive_flow(config: AutoregressiveFlowConfig, spec: Spec) -> Experiment:
    """Builds a MAF, or an IAF."""
    network = AutoregressiveFlow(spec.shape, config.hidden, config.blocks, config.bound, config.inverted)
    return _experiment(config, spec, network)


def _check_halves(spec: Spec) -> None:
    if math.prod(spec.shape) < 2:
        raise UserError(
            f"{spec.name} has one dimension, which couplings cannot divide into two halves: choose another --data.name."
        )


def _experiment(config: AnyFlowConfig, spec: Spec, network: nn.Module, *, prior: str = "normal") -> Experiment:
    if config.alpha >= 0.5:
        raise UserError(f"--alpha {config.alpha} leaves nothing between alpha and 1 - alpha: use less than 0.5.")
    if spec.levels is None:
        dequantization = flow.no_dequantization()
    else:
        dequantization = flow.uniform_dequantization(levels=spec.levels, alpha=config.alpha or None)
    family = flow.Flow(network=network, prior=_PRIORS[prior](), dequantization=dequantization)
    density = {"density": DensityPicture(family.log_density, family.decode)} if spec.shape == (2,) else {}
    return Experiment(
        family.model,
        family=family,
        optimizers={"flow": make_optimizer(config.optimizer, num_steps=config.train.steps)},
        pictures={**plotting.grids(family, spec.shape), **density},
    )
