"""Optimiser configurations to optax transformations."""

import logging

import optax

from gm_jax.config import AdamConfig, OptimizerConfig, SGDConfig
from gm_jax.errors import UserError
from gm_jax.recipes.run_length import warmup_steps
from gm_jax.training import optimizers

_LOG = logging.getLogger(__name__)


def make_optimizer(optimizer: OptimizerConfig, *, num_steps: int) -> optax.GradientTransformation:
    """Returns the Adam that a configuration describes.

    Args:
        optimizer: the configuration.
        num_steps: train steps of the run.

    Raises:
        UserError: the steps are too few for an update, or for the warm-up.
    """
    num_updates = num_steps // optimizer.accumulate_steps
    if num_updates == 0:
        raise UserError(
            f"--optimizer.accumulate-steps {optimizer.accumulate_steps} makes no update in {num_steps} steps: use at "
            f"most {num_steps}, or train for more steps."
        )
    return optimizers.adam(
        _schedule(optimizer, num_updates=num_updates, section="optimizer"),
        b1=0.9,
        b2=0.999,
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
        l2=optimizer.l2,
        clip_norm=optimizer.clip_norm,
        accumulate_steps=optimizer.accumulate_steps,
    )


def make_adam(adam: AdamConfig, *, num_updates: int, section: str) -> optax.GradientTransformation:
    """Returns the Adam of one player or stage.

    Args:
        adam: the configuration.
        num_updates: updates of this player in the whole run.
        section: its name in flags, e.g. "generator".

    Raises:
        UserError: the updates are too few for the warm-up.
    """
    return optimizers.adam(_schedule(adam, num_updates=num_updates, section=section), b1=adam.b1, b2=adam.b2)


def make_sgd(sgd: SGDConfig, *, num_steps: int) -> optax.GradientTransformation:
    """Returns the stochastic gradient descent that a configuration describes.

    Args:
        sgd: the configuration.
        num_steps: train steps of the run.
    """
    if sgd.schedule == "constant":
        schedule = optimizers.constant_schedule(sgd.learning_rate)
    else:
        schedule = optimizers.linear_schedule(sgd.learning_rate, num_steps=num_steps)
    return optimizers.sgd(schedule, momentum=sgd.momentum)


def _schedule(optimizer: OptimizerConfig | AdamConfig, *, num_updates: int, section: str) -> optimizers.Schedule:
    warmup = warmup_steps(optimizer, num_updates=num_updates)
    if optimizer.schedule == "constant":
        if warmup >= num_updates:  # a later command can make the run longer, so this is not refused
            _LOG.warning(
                "the warm-up takes %d updates and the run has %d: its rate does not reach the peak. Use "
                "--%s.warmup-steps %d, or train for more steps",
                *(warmup, num_updates, section, num_updates // 10),
            )
        return optimizers.constant_schedule(optimizer.learning_rate, warmup_steps=warmup)
    if warmup >= num_updates:
        raise UserError(
            f"the warm-up takes {warmup} of {num_updates} updates: use --{section}.warmup-steps {num_updates // 10}, "
            "or train for more steps."
        )
    return optimizers.cosine_schedule(optimizer.learning_rate, num_steps=num_updates, warmup_steps=warmup)
