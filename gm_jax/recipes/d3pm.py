"""The recipe of discrete diffusion by transition matrices."""

import dataclasses

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.models.d3pm import D3PM
from gm_jax.ops import transitions
from gm_jax.recipes import image_shapes
from gm_jax.recipes.configs.d3pm import D3PMConfig
from gm_jax.recipes.diffusion import make_network
from gm_jax.recipes.experiment import Experiment
from gm_jax.recipes.optimizers import make_optimizer

_LARGEST_END_DIVERGENCE = 0.05  # nats per dimension, a term of the bound
_MOST_NUMBERS = 2**26  # of all matrices, which every compiled program holds


def build_d3pm(config: D3PMConfig, spec: Spec) -> Experiment:
    """Builds a U-Net of logits, and the process that it reverses."""
    num_steps, levels = config.diffusion_steps, image_shapes.num_levels(spec)
    most = _MOST_NUMBERS // (2 * levels**2)
    if num_steps > most:
        raise UserError(
            f"--diffusion-steps {num_steps} needs too many transition matrices of {levels} levels: use at most {most}."
        )
    if config.bound_terms > num_steps:
        raise UserError(f"--bound-terms {config.bound_terms} is more than the {num_steps} steps: use at most as many.")
    if config.transitions == "gaussian":
        process = transitions.gaussian(transitions.linear_betas(num_steps), num_states=levels)
    else:
        process = transitions.uniform(transitions.cosine_betas(num_steps), num_states=levels)
    if transitions.end_divergence(process) > _LARGEST_END_DIVERGENCE:
        remedy = "more --diffusion-steps" if config.transitions == "uniform" else "--transitions uniform"
        raise UserError(
            f"after {num_steps} steps of --transitions {config.transitions} the noisy image still shows its "
            f"{levels} levels, but samples start from pure noise: use {remedy}."
        )
    family = D3PM(
        network=make_network(config.network, spec, None).clone(outputs=levels),
        transitions=process,
        levels=levels,
        shape=spec.shape,
        cross_entropy=config.cross_entropy,
        bound_terms=config.bound_terms or None,
    )
    at_validation = dataclasses.replace(family, bound_terms=min(config.validation_terms, num_steps) or None)
    return Experiment(
        family.model,
        family=family,
        optimizers={"d3pm": make_optimizer(config.optimizer, num_steps=config.train.steps)},
        validation=at_validation.log_prob,
        settings={"transitions": config.transitions},
    )
