"""The recipe of a model of your own: a family with your networks, or a `Model` of your functions."""

import dataclasses
from typing import Any

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.models.autoregressive import Autoregressive
from gm_jax.models.diffusion import Diffusion
from gm_jax.models.flow import Flow
from gm_jax.models.gan import GAN
from gm_jax.models.vae import VAE
from gm_jax.plotting import autoregressive as autoregressive_pictures
from gm_jax.plotting import diffusion as diffusion_pictures
from gm_jax.plotting import flow as flow_pictures
from gm_jax.plotting import vae as vae_pictures
from gm_jax.recipes import likelihoods
from gm_jax.recipes.configs.own_model import OwnModelConfig
from gm_jax.recipes.experiment import Experiment, LogProbEvaluation
from gm_jax.recipes.optimizers import make_optimizer
from gm_jax.types import Model

_VALIDATION_SAMPLES = 10  # of a VAE's bound that chooses the best checkpoint


def build_own_model(config: OwnModelConfig, spec: Spec) -> Experiment:
    """Refuses: config.json does not hold networks that were made in Python.

    Raises:
        UserError: always; it says how to open the run.
    """
    raise UserError(
        "the run was trained on a model that was made in Python, which its folder does not hold: give the same model, "
        "gm_jax.open_run(FOLDER, model=...)."
    )


def own_experiment(own: Any, config: OwnModelConfig, spec: Spec) -> Experiment:
    """Builds the experiment of a model that was made in Python, with the pictures and evaluations of its family.

    Args:
        own: a family with a property `model`, such as `models.vae.VAE`, or a `types.Model`.
        config: how to train it; every player gets the same optimiser.
        spec: of the data.

    Raises:
        UserError: `own` is neither, or the steps are too few for the optimiser.
    """
    model = own if isinstance(own, Model) else getattr(own, "model", None)
    if not isinstance(model, Model):
        raise UserError(f"{type(own).__name__} is not a model: give a family, e.g. models.vae.VAE, or a types.Model.")
    optimizer = make_optimizer(config.optimizer, num_steps=config.train.steps)
    experiment = Experiment(
        model, {objective.wrt: optimizer for objective in model.objectives}, family=None if own is model else own
    )
    match own:
        case VAE():
            few = min(_VALIDATION_SAMPLES, own.num_importance_samples)
            return experiment._replace(
                validation=dataclasses.replace(own, num_importance_samples=few).log_prob,
                evaluations=(LogProbEvaluation("negative_elbo", own.elbo),),
                pictures=vae_pictures.grids(own, spec.shape),
                sample_mean=own.sample_mean,
                observation=likelihoods.observation(own.likelihood, spec),
            )
        case Autoregressive():
            return experiment._replace(
                pictures=autoregressive_pictures.grids(own, spec.shape, levels=spec.levels),
                sample_mean=own.sample_mean if own.likelihood.measure == "binary" else None,
                observation=likelihoods.observation(own.likelihood, spec),
                uses_labels=own.num_classes is not None,
            )
        case Flow():
            return experiment._replace(pictures=flow_pictures.grids(own, spec.shape))
        case Diffusion():
            return experiment._replace(pictures=diffusion_pictures.grids(own), uses_labels=own.num_classes is not None)
        case GAN():
            return experiment._replace(prepare_evaluation=own.calibrate if own.kernels is not None else None)
    return experiment
