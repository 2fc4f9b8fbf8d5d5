"""The recipe of score-based models in continuous time."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import optax

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.models import augmentation, flow, path_objectives
from gm_jax.models.meanflow import MeanFlow
from gm_jax.models.optimal_transport import OptimalTransportFlow
from gm_jax.models.reflow import Reflow
from gm_jax.models.score import ODELikelihood, ScoreModel
from gm_jax.ops import gaussian_path
from gm_jax.ops.divergence import MOST_EXACT_DIMENSIONS
from gm_jax.plotting import score as plotting
from gm_jax.plotting.layout import Grid
from gm_jax.recipes.configs.score import ScoreConfig
from gm_jax.recipes.diffusion import make_network
from gm_jax.recipes.experiment import DensityPicture, Experiment, FlowPicture, LogProbEvaluation
from gm_jax.recipes.gan import mode_evaluation
from gm_jax.recipes.image_shapes import is_image
from gm_jax.recipes.optimizers import make_optimizer
from gm_jax.recipes.path_samplers import ODE_METHODS, path_sampler
from gm_jax.types import Array, Key, ModelState, Params

_EDGE = 1e-3  # how far paths whose ends have no signal or no noise stay from these
_WITH_BETAS = {"vp": gaussian_path.variance_preserving, "sub_vp": gaussian_path.sub_variance_preserving}
_WITH_SIGMAS = {"ve": gaussian_path.variance_exploding, "edm": gaussian_path.edm}


def build_score(config: ScoreConfig, spec: Spec) -> Experiment:
    """Builds a score-based model; its likelihood is the probability-flow ODE's, next to the variational bound.

    Raises:
        UserError: the fields contradict each other or do not fit the data.
    """
    family = score_model(config, spec)
    steps = config.train.steps
    optimizers = {"score": make_optimizer(config.optimizer, num_steps=steps)}
    settings: dict[str, Any] = {"path": config.path}
    if config.coupling == "optimal":
        return _optimal_transport(config, spec, family, optimizers, settings)
    if not config.reflow:
        return density_experiment(config, spec, family, family, optimizers, settings)
    if config.labels:
        raise UserError("--reflow needs a model without labels: leave out --labels.")
    if config.sampler.method not in ODE_METHODS or config.sampler.churn:
        raise UserError(
            "--reflow pairs each noise with what the flow makes of it, so the sampler must add no noise: use "
            f"--sampler.method {', '.join(ODE_METHODS)} without churn."
        )
    second_steps = round(config.reflow * steps)
    if not 0 < second_steps < steps:
        raise UserError(f"--reflow {config.reflow} of --train.steps {steps} leaves a stage without steps: use more.")
    optimizers = {
        "score": make_optimizer(config.optimizer, num_steps=steps - second_steps),
        "reflow": make_optimizer(config.optimizer, num_steps=second_steps),
    }
    reflow = Reflow(flow=family, teacher=family, first_steps=steps - second_steps)
    experiment = density_experiment(config, spec, family, reflow, optimizers, {**settings, "reflow": config.reflow})
    return _without_bound(experiment, family, reflow.second)


def _optimal_transport(
    config: ScoreConfig,
    spec: Spec,
    flow: ScoreModel,
    optimizers: Mapping[str, optax.GradientTransformation],
    settings: Mapping[str, Any],
) -> Experiment:
    """Builds a flow on pairs of least cost.

    Raises:
        UserError: the configuration asks for what such a flow cannot have.
    """
    reasons = {
        "--prediction velocity": config.prediction != "velocity",
        f"--sampler.method {', '.join(ODE_METHODS)} without churn": (
            config.sampler.method not in ODE_METHODS or config.sampler.churn
        ),
        "no --labels": config.labels,
        "no --augment": config.augment,
        "no --reflow": config.reflow,
    }
    missing = [wanted for wanted, is_missing in reasons.items() if is_missing]
    if missing:
        raise UserError(f"--coupling optimal trains a flow whose noise depends on the data: use {missing[0]}.")
    family = OptimalTransportFlow(flow=flow)
    experiment = density_experiment(config, spec, flow, family, optimizers, {**settings, "coupling": "optimal"})
    return _without_bound(experiment, flow, lambda params: params)


def _without_bound(experiment: Experiment, flow: ScoreModel, params_of: Callable[[Params], Params]) -> Experiment:
    """Drops what needs independent noise: the bound, and the score. Validation is a rough likelihood by the ODE."""
    exact = flow.likelihood.num_probes == 0
    roughly = dataclasses.replace(flow, likelihood=ODELikelihood(1e-2, 0 if exact else 1))
    pictures = dict(experiment.pictures)
    if isinstance(lines := pictures.get("flow"), FlowPicture):
        pictures["flow"] = lines._replace(
            field=lambda p, s, x: plotting.velocity_field(flow, params_of(p), s, x),
            field_name="velocity in the middle of the path",
        )
    return experiment._replace(
        validation=lambda p, s, key, x: roughly.log_prob(params_of(p), s, key, x),
        evaluations=experiment.evaluations[1:],
        pictures=pictures,
    )


def score_model(config: ScoreConfig, spec: Spec) -> ScoreModel:
    """Returns the family that a configuration describes.

    Raises:
        UserError: the fields contradict each other or do not fit the data.
    """
    num_classes = num_classes_of(config, spec)
    if config.augment and not (is_image(spec) and min(spec.shape[:2]) >= 4):
        raise UserError(f"--augment turns images of at least 4x4, and {spec.name} has none: leave it out.")
    sigma_data = config.sigma_data or (2.0 if spec.levels is None else 0.5)
    space = flow.no_dequantization() if spec.levels is None else flow.symmetric_dequantization(levels=spec.levels)
    return ScoreModel(
        network=make_network(
            config.network, spec, num_classes, augmented=augmentation.NUM_LABELS if config.augment else None
        ),
        space=space,
        path=make_path(config),
        shape=spec.shape,
        parameterization=_parameterization(config, sigma_data),
        times_fn=_times_fn(config),
        sampler=path_sampler(config.sampler, None if spec.levels is None else (-1.0, 1.0)),
        sigma_data=sigma_data,
        likelihood=_likelihood(config, spec),
        num_bound_times=config.likelihood.bound_times,
        num_classes=num_classes,
        drop_label=config.drop_label,
        guidance=config.guidance,
        augment=config.augment,
    )


def density_experiment(
    config: ScoreConfig,
    spec: Spec,
    model: ScoreModel,
    family: ScoreModel | Reflow | MeanFlow | OptimalTransportFlow,
    optimizers: Mapping[str, optax.GradientTransformation],
    settings: Mapping[str, Any],
) -> Experiment:
    """Puts an experiment together whose likelihoods and pictures are those of a score-based model.

    Args:
        config: the configuration.
        spec: of the data.
        model: the score-based model.
        family: the model itself, or what trains it; with `second`, `model` takes the parameters that it returns.
        optimizers: one per player.
        settings: of every result.
    """
    of_model = _second_of(family)
    # A picture of thousands of points needs no digits.
    roughly = dataclasses.replace(model, likelihood=ODELikelihood(tolerance=1e-3))
    density = DensityPicture(lambda p, s, x: roughly.log_density(of_model(p), s, x))
    sigma = 0.1 * model.sigma_data
    field = FlowPicture(
        lambda p, s, key, n: plotting.flow_lines(model, of_model(p), s, key, n),
        lambda p, s, x: plotting.score_field(model, of_model(p), s, x, sigma=sigma),
        f"score of the data with noise of {sigma:g}",
    )
    in_plane = {"density": density, "flow": field}
    validation = dataclasses.replace(model, num_bound_times=config.validation_times)
    pictures = {name: partial(_with_params, picture, of_model) for name, picture in plotting.grids(model).items()}
    return Experiment(
        family.model,
        family=family,
        optimizers=optimizers,
        validation=lambda params, model_state, key, x: validation.bound(of_model(params), model_state, key, x),
        evaluations=(
            LogProbEvaluation(
                "nll_bound", lambda params, model_state, key, x: model.bound(of_model(params), model_state, key, x)
            ),
            *((mode_evaluation(),) if spec.name == "toy:eight_gaussians" else ()),
        ),
        pictures={**pictures, **(in_plane if spec.shape == (2,) else {})},
        settings=settings,
        uses_labels=model.num_classes is not None,
    )


def make_path(config: ScoreConfig) -> gaussian_path.GaussianPath:
    """Returns the path that a configuration describes, with signal and noise at both ends of its range.

    Raises:
        UserError: a setting belongs to another path, or the least noise is not below the most.
    """
    betas = {"beta_min": config.beta_min, "beta_max": config.beta_max}
    sigmas = {"sigma_min": config.sigma_min, "sigma_max": config.sigma_max}
    for settings, owners in ((betas, _WITH_BETAS), (sigmas, _WITH_SIGMAS)):
        for name, value in settings.items():
            if value is not None and config.path not in owners:
                raise UserError(
                    f"--{name.replace('_', '-')} {value} has no effect on the path {config.path}: leave it out, or use "
                    f"--path {' or '.join(owners)}."
                )
    make = {**_WITH_BETAS, **_WITH_SIGMAS}.get(config.path)
    if make is not None:
        settings = {name: value for name, value in {**betas, **sigmas}.items() if value is not None}
        try:
            return make(**settings)
        except ValueError as error:
            flags = " or ".join(f"--{name.replace('_', '-')}" for name in settings)
            raise UserError(f"{error}\nChange {flags}.") from error
    if config.path == "cosine":
        path = gaussian_path.cosine()
        return path._replace(range=(path.range[0], 1.0 - _EDGE))
    path = gaussian_path.linear() if config.path == "linear" else gaussian_path.trigonometric()
    return path._replace(range=(_EDGE, path.range[1] - _EDGE))


def _second_of(family: ScoreModel | Reflow | MeanFlow | OptimalTransportFlow) -> Callable[[Params], Params]:
    """Returns the function that takes a run's parameters to those of its score-based model."""
    return family.second if isinstance(family, Reflow) else lambda params: params


def _with_params(
    picture: Callable[..., Grid],
    of_model: Callable[[Params], Params],
    params: Params,
    model_state: ModelState,
    key: Key,
    x: Array,
) -> Grid:
    return picture(of_model(params), model_state, key, x)


def _parameterization(config: ScoreConfig, sigma_data: float) -> path_objectives.Parameterization:
    if config.prediction == "preconditioned":
        return path_objectives.preconditioned_prediction(sigma_data=sigma_data)
    return {
        "noise": path_objectives.noise_prediction,
        "data": path_objectives.data_prediction,
        "velocity": path_objectives.velocity_prediction,
    }[config.prediction]()


def _times_fn(config: ScoreConfig) -> path_objectives.TimesFn:
    if config.times == "log_normal":
        mean, std = config.log_normal_mean, config.log_normal_std
        return partial(path_objectives.log_normal_times, mean=mean, std=std)
    return {"uniform": path_objectives.uniform_times, "log_snr": path_objectives.log_snr_times}[config.times]


def _likelihood(config: ScoreConfig, spec: Spec) -> ODELikelihood:
    size = math.prod(spec.shape)
    probes = config.likelihood.probes
    if probes is None:
        probes = 0 if spec.levels is None and size <= MOST_EXACT_DIMENSIONS else 2
    if probes == 0 and size > MOST_EXACT_DIMENSIONS:
        raise UserError(
            f"--likelihood.probes 0 asks for an exact divergence in {size} dimensions, which is too slow above "
            f"{MOST_EXACT_DIMENSIONS}: use --likelihood.probes 1 or more."
        )
    tolerance = config.likelihood.tolerance or (1e-5 if spec.levels is None else 1e-3)
    return ODELikelihood(tolerance, probes)


def num_classes_of(config: ScoreConfig, spec: Spec) -> int | None:
    """Returns the number of classes of a model with labels, None for a model without.

    Raises:
        UserError: the data have none, or a field of labels has no effect.
    """
    if not config.labels:
        if config.guidance:
            raise UserError(f"--guidance {config.guidance} needs a model with labels: add --labels.")
        return None
    if spec.num_classes is None:
        raise UserError(f"{spec.name} has no labels to condition on: leave out --labels.")
    if not 0.0 < config.drop_label < 1.0:
        raise UserError(
            f"--drop-label {config.drop_label} leaves one of the two models without examples: use a number between 0 "
            "and 1."
        )
    return spec.num_classes
