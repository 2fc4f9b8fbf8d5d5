"""The recipe of deep energy-based models."""

import dataclasses

import jax

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.evaluation.partition import log_partition
from gm_jax.models.energy import Chains, EnergyBasedModel
from gm_jax.models.energy_partition import Partition
from gm_jax.models.energy_space import images, points
from gm_jax.networks.energy import EnergyConvNet, EnergyMLP
from gm_jax.plotting import energy as plotting
from gm_jax.recipes import image_shapes
from gm_jax.recipes.configs.energy import ChainsConfig, EBMConfig
from gm_jax.recipes.experiment import DensityPicture, Experiment, LogProbEvaluation
from gm_jax.recipes.gan import mode_evaluation
from gm_jax.recipes.optimizers import make_optimizer
from gm_jax.types import Array, ModelState, Params


def build_ebm(config: EBMConfig, spec: Spec) -> Experiment:
    """Builds an energy-based model; its log Z is a quadrature for points, and an estimate for images.

    Raises:
        UserError: the persistent chains are not a multiple of the batch, or there are too few temperatures.
    """
    _check(config)
    if (config.network or ("conv" if image_shapes.is_image(spec) else "mlp")) == "mlp":
        network = EnergyMLP(config.hidden, config.spectral_norm)
    else:
        image_shapes.image_shape(spec)
        network = EnergyConvNet(config.features, config.spectral_norm)
    base_std = config.base_std or (4.0 if spec.levels is None else 1.0)
    partition = Partition(
        summarize=log_partition,
        num_temperatures=config.temperatures,
        num_runs=config.runs,
        step_size=config.leapfrog_step,
        reach=4.0 * base_std,
    )
    # Other chains train and sample another density than exp(-E) / Z, whose likelihood would be that of another model.
    samples_the_model = config.chains.temperature == 1.0 and config.chains.clip_gradient is None
    family = EnergyBasedModel(
        network=network,
        space=points() if spec.levels is None else images(levels=spec.levels),
        shape=spec.shape,
        chains=_chains(config.chains),
        base_std=base_std,
        penalty=config.penalty,
        partition=partition if samples_the_model else None,
    )
    at_validation = dataclasses.replace(partition, num_temperatures=max(2, config.validation_temperatures))
    below = samples_the_model and spec.levels is not None

    def log_density(params: Params, model_state: ModelState, x: Array) -> Array:
        # The state that is drawn is that of training, which knows no log Z.
        key = jax.random.key(config.train.seed)
        return family.log_density(params, family.calibrate(params, model_state, key, x)[0], x)

    density = {"density": DensityPicture(log_density)} if spec.shape == (2,) and samples_the_model else {}
    return Experiment(
        family.model,
        optimizers={"energy": make_optimizer(config.optimizer, num_steps=config.train.steps)},
        validation=dataclasses.replace(family, partition=at_validation).log_prob_below if below else None,
        evaluations=(
            *((LogProbEvaluation("nll_at_high_log_z", family.log_prob_below),) if below else ()),
            *((mode_evaluation(),) if spec.name == "toy:eight_gaussians" else ()),
        ),
        prepare_evaluation=family.calibrate if samples_the_model else None,
        prepare_validation=dataclasses.replace(family, partition=at_validation).calibrate
        if samples_the_model
        else None,
        pictures={**plotting.grids(family, spec.shape), **density},
    )


def _check(config: EBMConfig) -> None:
    chains, batch_size = config.chains, config.train.batch_size
    if chains.persistent % batch_size:
        raise UserError(
            f"--chains.persistent {chains.persistent} is not a multiple of --train.batch-size {batch_size}: use "
            f"{max(1, chains.persistent // batch_size) * batch_size}, or 0 for chains that start from noise."
        )
    for flag, value in (("temperatures", config.temperatures), ("runs", config.runs)):
        if value < 2:
            raise UserError(f"--{flag} {value} is too few for annealed importance sampling: use at least 2.")


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
