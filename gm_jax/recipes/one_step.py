"""The recipes of models that make a sample in one step: MeanFlow, and consistency models."""

import dataclasses

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.models import path_objectives
from gm_jax.models.consistency import ConsistencyModel
from gm_jax.models.meanflow import MeanFlow
from gm_jax.networks.convolution import Conv
from gm_jax.networks.two_times import TwoTimes
from gm_jax.networks.unet import UNet
from gm_jax.plotting import one_step as plotting
from gm_jax.recipes.configs.one_step import AnyOneStepConfig, ConsistencyConfig, MeanFlowConfig
from gm_jax.recipes.configs.score import PathSamplerConfig, ScoreConfig
from gm_jax.recipes.experiment import Experiment
from gm_jax.recipes.gan import mode_evaluation
from gm_jax.recipes.optimizers import make_optimizer
from gm_jax.recipes.score import density_experiment, score_model


def build_meanflow(config: MeanFlowConfig, spec: Spec) -> Experiment:
    """Builds a MeanFlow; its likelihood is that of the flow between equal times.

    Raises:
        UserError: the fields contradict each other or do not fit the data.
    """
    inner = _score_config(
        config,
        path="linear",
        prediction="velocity",
        times="log_normal",
        log_normal_mean=config.log_normal_mean,
        log_normal_std=config.log_normal_std,
        sampler=PathSamplerConfig(method="euler", steps=20, grid="uniform"),
        likelihood=config.likelihood,
        validation_times=config.validation_times,
        guidance=config.guidance,
    )
    flow = score_model(inner, spec)
    flow = dataclasses.replace(
        flow, network=TwoTimes(flow.network), level_fn=path_objectives.uniform_level, guidance=0.0
    )
    family = MeanFlow(
        flow=flow,
        same_time=config.same_time,
        power=config.power,
        num_steps=config.sampling_steps,
        guidance=config.guidance,
        own_direction=config.own_direction,
    )
    optimizers = {"score": make_optimizer(config.optimizer, num_steps=config.train.steps)}
    experiment = density_experiment(inner, spec, flow, family, optimizers, {"path": "linear"})
    return experiment._replace(pictures={**experiment.pictures, **plotting.grids(family, flow)})


def build_consistency(config: ConsistencyConfig, spec: Spec) -> Experiment:
    """Builds an EDM and a consistency model of it, in two stages of one run; it has no likelihood.

    Raises:
        UserError: the fields contradict each other or do not fit the data, or a stage has no steps.
    """
    if config.times < 2:
        raise UserError(f"--times {config.times} leaves no neighbours to be consistent: use at least 2.")
    second_steps = round(config.distillation * config.train.steps)
    first_steps = config.train.steps - second_steps
    if not first_steps or not second_steps:
        raise UserError(
            f"--distillation {config.distillation} of --train.steps {config.train.steps} leaves a stage without steps: "
            "use more steps."
        )
    inner = _score_config(
        config,
        path="edm",
        prediction="preconditioned",
        times="log_normal",
        sigma_min=config.sigma_min,
        sigma_max=config.sigma_max,
        guidance=config.guidance,
    )
    teacher = score_model(inner, spec)
    if isinstance(teacher.network, UNet):  # trained in turns
        teacher = dataclasses.replace(teacher, network=teacher.network.clone(conv=Conv))
    family = ConsistencyModel(
        teacher=teacher, teacher_steps=first_steps, num_times=config.times, num_steps=config.sampling_steps
    )
    return Experiment(
        family.model,
        family=family,
        optimizers={
            "score": make_optimizer(config.optimizer, num_steps=first_steps),
            "consistency": make_optimizer(config.optimizer, num_steps=second_steps),
        },
        evaluations=(mode_evaluation(),) if spec.name == "toy:eight_gaussians" else (),
        pictures=plotting.grids(family, teacher),
        uses_labels=teacher.num_classes is not None,
    )


def _score_config(config: AnyOneStepConfig, **settings) -> ScoreConfig:
    """Returns the score-based model inside, with the fields that both share."""
    names = ("data", "train", "optimizer", "network", "sigma_data", "labels", "drop_label")
    return ScoreConfig(**{name: getattr(config, name) for name in names}, **settings)
