"""Recipes of deep energy-based models."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.evaluation.partition import log_partition
from gm_jax.models.energy import EnergyBasedModel
from gm_jax.models.energy_chains import Chains
from gm_jax.models.energy_partition import Partition
from gm_jax.models.energy_space import images, points
from gm_jax.models.flow import Flow, no_dequantization, standard_normal
from gm_jax.models.noise_contrastive import NoiseContrastiveModel
from gm_jax.networks.affine_flow import AffineFlow
from gm_jax.networks.energy import EnergyConvNet, EnergyMLP
from gm_jax.networks.realnvp import RealNVP
from gm_jax.networks.spline_flow import SplineFlow
from gm_jax.plotting import energy as plotting
from gm_jax.recipes import image_shapes
from gm_jax.recipes.configs.energy import AnyEnergyConfig, ChainsConfig, EBMConfig
from gm_jax.recipes.experiment import DensityPicture, Experiment, LogProbEvaluation
from gm_jax.recipes.gan import mode_evaluation
from gm_jax.recipes.optimizers import make_optimizer
from gm_jax.types import Array, ModelState, Params


def build_ebm(config: EBMConfig, spec: Spec) -> Experiment:
    """Builds an energy-based model; its log Z is a quadrature for points, and an estimate for images.

    Raises:
        UserError: the persistent chains are not a multiple of the batch, or noise is set for an objective that has
            none.
    """
    if config.objective == "nce":
        return _noise_contrastive(config, spec)
    for flag, value, default in (("noise", config.noise, "normal"), ("noise-ratio", config.noise_ratio, 1)):
        if value != default:
            raise UserError(f"--{flag} {value} has no effect on training by chains: use --objective nce.")
    # Other chains train and sample another density than exp(-E) / Z, whose likelihood would be that of another model.
    has_likelihood = config.chains.temperature == 1.0 and config.chains.clip_gradient is None
    family = energy_model(config, spec, config.chains, penalty=config.penalty, has_likelihood=has_likelihood)
    return Experiment(
        family.model,
        family=family,
        optimizers={"energy": make_optimizer(config.optimizer, num_steps=config.train.steps)},
        pictures={**plotting.grids(family, spec.shape), **density_picture(config, family, spec)},
        **measured(config, family, spec),
    )


def energy_model(
    config: AnyEnergyConfig,
    spec: Spec,
    chains: ChainsConfig,
    *,
    penalty: float = 0.0,
    has_likelihood: bool = True,
    num_classes: int | None = None,
    to_energy: Callable[[Array], Array] | None = None,
) -> EnergyBasedModel:
    """Returns the energy-based model that a configuration describes.

    Args:
        config: the configuration.
        spec: of the data.
        chains: of training and sampling.
        penalty: weight of the squared energies in the loss.
        has_likelihood: whether to estimate log Z.
        num_classes: outputs of the network; None for one energy.
        to_energy: of `EnergyBasedModel`.

    Raises:
        UserError: the network does not fit the data, or the persistent chains are not a multiple of the batch.
    """
    _check(config, chains)
    if (config.network or ("conv" if image_shapes.is_image(spec) else "mlp")) == "mlp":
        network: nn.Module = EnergyMLP(config.hidden, config.spectral_norm, num_classes=num_classes)
    else:
        image_shapes.image_shape(spec)
        network = EnergyConvNet(config.features, config.spectral_norm, num_classes=num_classes)
    base_std = config.base_std or (4.0 if spec.levels is None else 1.0)
    partition = Partition(
        summarize=log_partition,
        num_temperatures=config.temperatures,
        num_runs=config.runs,
        step_size=config.leapfrog_step,
        reach=4.0 * base_std,
    )
    return EnergyBasedModel(
        network=network,
        space=points() if spec.levels is None else images(levels=spec.levels),
        shape=spec.shape,
        chains=_chains(chains),
        base_std=base_std,
        penalty=penalty,
        to_energy=to_energy,
        partition=partition if has_likelihood else None,
    )


def measured(config: AnyEnergyConfig, family: EnergyBasedModel, spec: Spec) -> dict[str, Any]:
    """Returns what is measured of an energy and how its log Z is found, as arguments of an `Experiment`."""
    modes = (mode_evaluation(),) if spec.name == "toy:eight_gaussians" else ()
    if family.partition is None:
        return {"evaluations": modes}
    short = dataclasses.replace(family.partition, num_temperatures=max(2, config.validation_temperatures))
    at_validation = dataclasses.replace(family, partition=short)
    ends = (("nll_at_low_log_z", family.log_prob_above), ("nll_at_high_log_z", family.log_prob_below))
    is_annealed = spec.shape != (2,)
    return {
        "validation": at_validation.log_prob_below if is_annealed else None,
        "evaluations": (*(LogProbEvaluation(*end) for end in ends if is_annealed), *modes),
        "prepare_evaluation": family.calibrate,
        "prepare_validation": at_validation.calibrate,
    }


def density_picture(config: AnyEnergyConfig, family: EnergyBasedModel, spec: Spec) -> dict[str, DensityPicture]:
    """Returns the picture of the density of points in the plane, by its name; for other data there is none."""

    def log_density(params: Params, model_state: ModelState, x: Array) -> Array:
        # The state that is drawn is that of training, which knows no log Z.
        key = jax.random.key(config.train.seed)
        return family.log_density(params, family.calibrate(params, model_state, key, x)[0], x)

    return {"density": DensityPicture(log_density)} if spec.shape == (2,) and family.partition is not None else {}


def small_flow(spec: Spec) -> Flow:
    """Returns a flow of scaled data that is quick to sample: noise, or a generator."""
    if math.prod(spec.shape) < 2:
        raise UserError(f"{spec.name} has one dimension, which a flow cannot divide: choose another --data.name.")
    if spec.levels is None:
        return _flow(SplineFlow(spec.shape, (64, 64), 3, 16))
    return _flow(RealNVP(spec.shape, (128, 128), 4, 2.0))


def _noise_contrastive(config: EBMConfig, spec: Spec) -> Experiment:
    energy = energy_model(config, spec, dataclasses.replace(config.chains, persistent=0))
    noise = small_flow(spec) if config.noise == "flow" else _flow(AffineFlow(spec.shape))
    family = NoiseContrastiveModel(energy=energy, noise=noise, noise_ratio=config.noise_ratio)
    of_energy = measured(config, energy, spec)
    with_log_z = LogProbEvaluation("nll_with_computed_log_z", energy.log_prob)
    return Experiment(
        family.model,
        family=family,
        optimizers={
            player: make_optimizer(config.optimizer, num_steps=config.train.steps) for player in ("noise", "energy")
        },
        pictures={**plotting.grids(energy, spec.shape), **density_picture(config, energy, spec)},
        **{
            **of_energy,
            "evaluations": (with_log_z, *of_energy["evaluations"]),
            # The learned log Z lets the log-density grow everywhere: it would choose the checkpoint that flatters most.
            "validation": of_energy["validation"] or energy.log_prob,
        },
    )


def _flow(network: nn.Module) -> Flow:
    return Flow(network=network, prior=standard_normal(), dequantization=no_dequantization())


def _check(config: AnyEnergyConfig, chains: ChainsConfig) -> None:
    batch_size = config.train.batch_size
    if chains.persistent % batch_size:
        raise UserError(
            f"--chains.persistent {chains.persistent} is not a multiple of --train.batch-size {batch_size}: use "
            f"{max(1, chains.persistent // batch_size) * batch_size}, or 0 for chains that start from noise."
        )


def _chains(config: ChainsConfig) -> Chains:
    return Chains(
        num_steps=config.steps,
        step_size=config.step_size,
        temperature=config.temperature,
        num_persistent=config.persistent or None,
        restart=config.restart,
        clip_gradient=config.clip_gradient,
        sampling_steps=config.sampling_steps,
    )
