"""The recipe of restricted Boltzmann machines."""

import dataclasses
import math

from gm_jax.data.sources import Spec
from gm_jax.evaluation.partition import log_partition
from gm_jax.models.rbm import RestrictedBoltzmannMachine
from gm_jax.models.rbm_partition import AnnealedPartition
from gm_jax.networks.rbm import RBM
from gm_jax.plotting import rbm as plotting
from gm_jax.recipes import likelihoods
from gm_jax.recipes.configs.rbm import RBMConfig
from gm_jax.recipes.experiment import Experiment, LogProbEvaluation
from gm_jax.recipes.image_shapes import num_levels
from gm_jax.recipes.optimizers import make_sgd


def build_rbm(config: RBMConfig, spec: Spec) -> Experiment:
    """Builds an RBM; its likelihood is exact if one side is small, else an estimate with a bracket.

    Raises:
        UserError: the data are not binary or made binary.
    """
    likelihood, facts = likelihoods.binary(spec, config.binarization)
    partition = AnnealedPartition(
        summarize=log_partition,
        num_temperatures=config.temperatures,
        num_runs=config.runs,
        num_sweeps=max(1, config.temperatures // 5),
    )
    family = RestrictedBoltzmannMachine(
        network=RBM(math.prod(spec.shape), config.hidden),
        binarize=likelihood.prepare,
        levels=num_levels(spec),
        shape=spec.shape,
        num_sweeps=config.sweeps,
        num_chains=config.chains if config.persistent else None,
        sampling_sweeps=config.sampling_sweeps,
        partition=partition,
        raise_temperatures=config.raise_temperatures,
    )
    short = dataclasses.replace(
        partition,
        num_temperatures=config.validation_temperatures,
        num_sweeps=config.validation_temperatures // 5 + 1,
    )
    at_validation = dataclasses.replace(family, partition=None if family.is_exact else short)
    ends = (("nll_at_low_log_z", family.log_prob_above), ("nll_at_high_log_z", family.log_prob_below))
    beside_exact = (("nll_with_annealed_log_z", family.log_prob_annealed),) if family.is_exact else ()
    of_images = (("nll_of_annealed_model", family.annealed_log_prob),) if config.raise_temperatures else ()
    return Experiment(
        family.model,
        optimizers={"rbm": make_sgd(config.optimizer, num_steps=config.train.steps)},
        validation=None if family.is_exact else at_validation.log_prob_below,
        evaluations=tuple(LogProbEvaluation(name, log_prob) for name, log_prob in (*beside_exact, *ends, *of_images)),
        prepare_evaluation=family.calibrate,
        prepare_validation=at_validation.calibrate,
        pictures=plotting.grids(family, spec.shape),
        sample_mean=family.sample_mean,
        settings=facts,
        observation=likelihoods.observation(likelihood, spec),
    )
