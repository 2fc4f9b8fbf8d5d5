"""Optimiser configurations to optax transformations, and the parameters' average."""

import logging
from collections.abc import Callable

import optax

from gm_jax.config import AdamConfig, ExperimentConfig, OptimizerConfig, SGDConfig
from gm_jax.config.sections import WITHOUT_END
from gm_jax.errors import UserError
from gm_jax.recipes.run_length import warmup_steps
from gm_jax.training import ema, optimizers

_LOG = logging.getLogger(__name__)

_SCALINGS: dict[str, Callable[[OptimizerConfig], optax.GradientTransformation]] = {
    "adam": lambda config: optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
    "adamax": lambda config: optax.scale_by_adamax(b1=config.b1, b2=config.b2, eps=config.eps),
    "radam": lambda config: optax.scale_by_radam(b1=config.b1, b2=config.b2, eps=config.eps),
    # The sum starts at 0, as in the paper; optax's default is 0.1.
    "adagrad": lambda config: optax.scale_by_rss(initial_accumulator_value=0.0, eps=config.eps),
    "rmsprop": lambda config: optax.scale_by_rms(decay=config.b2, eps=config.eps),
}


def make_optimizer(optimizer: OptimizerConfig, *, num_steps: int) -> optax.GradientTransformation:
    """Returns the optimiser that a configuration describes.

    Args:
        optimizer: the configuration.
        num_steps: train steps of the run.

    Raises:
        UserError: the steps are too few for an update, or for the warm-up; or a field belongs to another schedule.
    """
    num_updates = num_steps // optimizer.accumulate_steps
    if num_updates == 0:
        raise UserError(
            f"--optimizer.accumulate-steps {optimizer.accumulate_steps} makes no update in {num_steps} steps: use at "
            f"most {num_steps}, or train for more steps."
        )
    return optimizers.optimizer(
        _SCALINGS[optimizer.algorithm](optimizer),
        _schedule(optimizer, num_updates=num_updates, section="optimizer"),
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


def make_average(config: ExperimentConfig) -> ema.WeightFn | None:
    """Returns the weight of the parameters' average that a configuration describes; None for no average.

    Raises:
        UserError: both a decay and a half-life are given.
    """
    train = config.train
    if train.ema_decay and train.ema_halflife:
        raise UserError(
            f"--train.ema-decay {train.ema_decay:g} and --train.ema-halflife {train.ema_halflife:g} are two names of "
            "one number: use --train.ema-decay 0, or leave out the half-life."
        )
    decay = train.ema_decay
    if train.ema_halflife:
        optimizer = getattr(config, "optimizer", None)
        accumulated = optimizer.accumulate_steps if isinstance(optimizer, OptimizerConfig) else 1
        decay = ema.decay_of_halflife(train.ema_halflife, images_per_update=train.batch_size * accumulated)
    if not decay:
        return None
    return {"ratio": ema.by_ratio, "ramp": ema.by_ramp, "none": ema.constant}[train.ema_warmup](decay)


def _schedule(optimizer: OptimizerConfig | AdamConfig, *, num_updates: int, section: str) -> optimizers.Schedule:
    warmup, rate = warmup_steps(optimizer, num_updates=num_updates), optimizer.learning_rate
    if isinstance(optimizer, OptimizerConfig):
        _refuse_fields_of_other_schedules(optimizer)
    if optimizer.schedule in WITHOUT_END:
        if warmup >= num_updates:  # a later command can make the run longer, so this is not refused
            _LOG.warning(
                "the warm-up takes %d updates and the run has %d: its rate does not reach the peak. Use "
                "--%s.warmup-steps %d, or train for more steps",
                *(warmup, num_updates, section, num_updates // 10),
            )
    elif warmup >= num_updates:
        raise UserError(
            f"the warm-up takes {warmup} of {num_updates} updates: use --{section}.warmup-steps {num_updates // 10}, "
            "or train for more steps."
        )
    if isinstance(optimizer, OptimizerConfig) and optimizer.schedule == "exponential":
        return optimizers.exponential_schedule(rate, decay_rate=optimizer.decay_rate, warmup_steps=warmup)
    if isinstance(optimizer, OptimizerConfig) and optimizer.schedule == "steps":
        try:
            return optimizers.step_schedule(
                rate, boundaries=optimizer.boundaries, factors=optimizer.factors, warmup_steps=warmup
            )
        except ValueError as error:
            raise UserError(f"{error}\nChange --optimizer.boundaries or --optimizer.factors.") from error
    if optimizer.schedule == "constant":
        return optimizers.constant_schedule(rate, warmup_steps=warmup)
    with_end = optimizers.cosine_schedule if optimizer.schedule == "cosine" else optimizers.linear_schedule
    return with_end(rate, num_steps=num_updates, warmup_steps=warmup)


def _refuse_fields_of_other_schedules(optimizer: OptimizerConfig) -> None:
    owners = {"decay_rate": ("exponential", 1.0), "boundaries": ("steps", ()), "factors": ("steps", ())}
    for name, (owner, unused) in owners.items():
        value = getattr(optimizer, name)
        if value != unused and optimizer.schedule != owner:
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            raise UserError(
                f"--optimizer.{name.replace('_', '-')} {shown} has no effect on --optimizer.schedule "
                f"{optimizer.schedule}: leave it out, or use --optimizer.schedule {owner}."
            )
