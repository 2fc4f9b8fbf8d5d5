"""The recipe of masked diffusion."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.models.masked_diffusion import MaskedDiffusion
from gm_jax.networks.masked_transformer import MaskedTransformer
from gm_jax.ops import orders
from gm_jax.plotting import masked as plotting
from gm_jax.recipes import image_shapes, likelihoods
from gm_jax.recipes.configs.masked import MaskedDiffusionConfig
from gm_jax.recipes.experiment import Experiment, LogProbEvaluation
from gm_jax.recipes.optimizers import make_optimizer
from gm_jax.types import Array, Key, Likelihood, LogProbFn, ModelState, Params


def build_masked_diffusion(config: MaskedDiffusionConfig, spec: Spec) -> Experiment:
    """Builds a transformer that predicts masked dimensions from visible ones."""
    num_dims = math.prod(spec.shape)
    if config.features % config.heads:
        raise UserError(f"--heads {config.heads} do not divide --features {config.features}: use a divisor.")
    likelihood, facts = likelihoods.pixel_likelihood(
        spec, output=config.output, components=config.components, binarization=config.binarization
    )
    for flag in ("sampling_steps", "bound_terms"):
        if getattr(config, flag) > num_dims:
            name = flag.replace("_", "-")
            raise UserError(f"--{name} {getattr(config, flag)} is more than the {num_dims} dimensions of {spec.name}.")
    levels = 2 if config.output == "bernoulli" else image_shapes.num_levels(spec)
    outputs = {"bernoulli": 1, "categorical": levels, "logistic_mixture": 3 * config.components}[config.output]
    network = MaskedTransformer(
        spec.shape, levels, outputs, config.features, config.heads, config.layers, config.dropout
    )
    family = MaskedDiffusion(
        network=network,
        likelihood=likelihood,
        shape=spec.shape,
        sampling_steps=config.sampling_steps or None,
        bound_terms=config.bound_terms or None,
        mixture_orders=config.mixture_orders,
    )
    at_validation = dataclasses.replace(family, bound_terms=min(config.validation_terms, num_dims) or None)
    in_orders = [
        LogProbEvaluation(f"nll_{name}", _in_order(family, order)) for name, order in orders.named(spec.shape).items()
    ]
    return Experiment(
        family.model,
        family=family,
        optimizers={"masked_diffusion": make_optimizer(config.optimizer, num_steps=config.train.steps)},
        validation=at_validation.log_prob,
        evaluations=(LogProbEvaluation("nll_mixture", family.mixture_log_prob), *in_orders),
        pictures=plotting.grids(family, spec.shape, levels=spec.levels),
        settings=facts,
        observation=likelihoods.observation(likelihood, spec),
    )


def _in_order(family: MaskedDiffusion, order: np.ndarray) -> LogProbFn:
    def log_prob(params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        return family.log_prob_in_order(params, key, x, jnp.asarray(order))

    return log_prob
