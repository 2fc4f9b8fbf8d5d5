"""Defaults that depend on the length of a run: the warm-up, and the steps of the first of two stages.

They are constants for runs of the usual length, and shares of a run that is too short for them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from gm_jax.config import AdamConfig, OptimizerConfig
from gm_jax.config.sections import WITHOUT_END
from gm_jax.errors import UserError
from gm_jax.recipes.configs.latent_diffusion import AutoencoderConfig, SpatialAutoencoderConfig
from gm_jax.recipes.configs.vq_vae import CodeAutoencoderConfig

ConfigT = TypeVar("ConfigT")
FirstStage = AutoencoderConfig | SpatialAutoencoderConfig | CodeAutoencoderConfig

_WARMUP_STEPS = 100


def warmup_steps(optimizer: OptimizerConfig | AdamConfig, *, num_updates: int) -> int:
    """Returns the updates of the warm-up; a default one leaves most of a cosine."""
    if optimizer.warmup_steps is not None:
        return optimizer.warmup_steps
    # Some rates have the same first steps in a longer run, so their warm-up must not depend on the run's length.
    if optimizer.schedule in WITHOUT_END or num_updates > _WARMUP_STEPS:
        return _WARMUP_STEPS
    return num_updates // 10


def first_stage_steps(autoencoder: FirstStage, *, num_steps: int) -> int:
    """Returns how many of the run's steps train the autoencoder."""
    if autoencoder.steps is not None:
        return autoencoder.steps
    part, whole = autoencoder.share
    return min(autoencoder.most_steps, max(1, num_steps * part // whole))


def second_stage_steps(first: FirstStage, *, num_steps: int) -> int:
    """Returns how many of a run's steps train the model of latents or codes.

    Raises:
        UserError: the first stage leaves none.
    """
    first_steps = first_stage_steps(first, num_steps=num_steps)
    if first_steps >= num_steps:
        raise UserError(
            f"--autoencoder.steps {first_steps} leave none of --train.steps {num_steps} for the second stage: use "
            "fewer."
        )
    return num_steps - first_steps


def resolved(config: ConfigT) -> ConfigT:
    """Returns a configuration with numbers in place of the defaults that depend on the length of its run.

    config.json holds the numbers, so that a run can be resumed by a version with other defaults.
    """
    changes: dict[str, Any] = {}
    parts = vars(config)
    num_steps = parts["train"].steps
    if isinstance(first := parts.get("autoencoder"), FirstStage):
        first_steps = first_stage_steps(first, num_steps=num_steps)
        adam = dataclasses.replace(first.optimizer, warmup_steps=warmup_steps(first.optimizer, num_updates=first_steps))
        changes["autoencoder"] = dataclasses.replace(first, steps=first_steps, optimizer=adam)
        num_steps -= first_steps
    if isinstance(optimizer := parts.get("optimizer"), OptimizerConfig):
        num_updates = min(num_steps, _shortest_stage(parts)) // optimizer.accumulate_steps
        warmup = warmup_steps(optimizer, num_updates=num_updates)
        changes["optimizer"] = dataclasses.replace(optimizer, warmup_steps=warmup)
    return dataclasses.replace(cast(Any, config), **changes)


def _shortest_stage(parts: Mapping[str, Any]) -> int:
    """Returns the steps of the shorter of two stages that share an optimiser; all steps of a run of one stage."""
    steps = parts["train"].steps
    shares = [share for name in ("distillation", "reflow") if (share := parts.get(name))]
    return min([steps, *(max(1, min(round(share * steps), steps - round(share * steps))) for share in shares)])
