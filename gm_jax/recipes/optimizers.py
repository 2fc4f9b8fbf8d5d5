"""Optimiser configurations to optax transformations."""

from typing import Literal

import optax

from gm_jax.config import AdamConfig, OptimizerConfig
from gm_jax.errors import UserError
from gm_jax.training import optimizers


def make_optimizer(optimizer: OptimizerConfig, *, num_steps: int) -> optax.GradientTransformation:
    """Returns the Adam that a configuration describes.

    Args:
        optimizer: the configuration.
        num_steps: train steps of the run.
    """
    schedule = _schedule(
        optimizer.schedule,
        optimizer.learning_rate,
        num_updates=max(1, num_steps // optimizer.accumulate_steps),
        warmup_steps=optimizer.warmup_steps,
    )
    return optimizers.adam(
        schedule,
        b1=0.9,
        b2=0.999,
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
        clip_norm=optimizer.clip_norm,
        accumulate_steps=optimizer.accumulate_steps,
    )


def make_adam(adam: AdamConfig, *, num_updates: int) -> optax.GradientTransformation:
    """Returns the Adam of one player or stage.

    Args:
        adam: the configuration.
        num_updates: updates of this player in the whole run.
    """
    schedule = _schedule(
        adam.schedule, adam.learning_rate, num_updates=max(1, num_updates), warmup_steps=adam.warmup_steps
    )
    return optimizers.adam(schedule, b1=adam.b1, b2=adam.b2)


def _schedule(
    kind: Literal["constant", "cosine"], learning_rate: float, *, num_updates: int, warmup_steps: int
) -> optimizers.Schedule:
    if kind == "constant":
        return optimizers.constant_schedule(learning_rate, warmup_steps=warmup_steps)
    if warmup_steps >= num_updates:
        raise UserError(
            f"the warm-up takes {warmup_steps} of {num_updates} updates: train for more steps, or warm up for fewer."
        )
    return optimizers.cosine_schedule(learning_rate, num_steps=num_updates, warmup_steps=warmup_steps)
