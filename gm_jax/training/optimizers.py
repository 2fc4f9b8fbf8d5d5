"""Schedules and gradient transformations, composed from optax."""

from collections.abc import Callable

import optax

Schedule = Callable[[int], float]


def constant_schedule(learning_rate: float, *, warmup_steps: int = 0) -> Schedule:
    """A linear warm-up from 0 over `warmup_steps` updates, then constant."""
    if warmup_steps < 0:
        raise ValueError(f"the warm-up cannot take {warmup_steps} steps")
    if warmup_steps == 0:
        return optax.constant_schedule(learning_rate)
    return optax.linear_schedule(0.0, learning_rate, warmup_steps)


def cosine_schedule(learning_rate: float, *, num_steps: int, warmup_steps: int = 0) -> Schedule:
    """A linear warm-up from 0, then half a cosine down to 0 at `num_steps` updates.

    Source: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017,
    arXiv:1608.03983, eq. 5, without restarts.
    """
    if not 0 <= warmup_steps < num_steps:
        raise ValueError(f"the warm-up takes {warmup_steps} of {num_steps} steps: it must leave some")
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup_steps else learning_rate, learning_rate, warmup_steps, num_steps
    )


def adam(
    schedule: Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    accumulate_steps: int = 1,
) -> optax.GradientTransformation:
    """Adam, with decoupled weight decay, clipping by the global norm and gradient accumulation where asked for.

    Args:
        schedule: learning rate as a function of the number of updates.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay (AdamW), times the learning rate.
        clip_norm: the gradient's global norm is scaled down to this, if larger.
        accumulate_steps: steps whose mean gradient makes one update.

    Raises:
        ValueError: clip_norm is not positive, or accumulate_steps is less than one.

    Source: Kingma & Ba, "Adam", ICLR 2015, arXiv:1412.6980; Loshchilov & Hutter, "Decoupled Weight Decay
    Regularization", ICLR 2019, arXiv:1711.05101.
    """
    if clip_norm is not None and not clip_norm > 0.0:
        raise ValueError(f"clip_norm must be positive, or None for no clipping, got {clip_norm}")
    if accumulate_steps < 1:
        raise ValueError(f"accumulate_steps must be at least 1, got {accumulate_steps}")
    clip = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    decay = [] if weight_decay == 0.0 else [optax.add_decayed_weights(weight_decay)]
    transformation = optax.chain(
        *clip, optax.scale_by_adam(b1=b1, b2=b2, eps=eps), *decay, optax.scale_by_learning_rate(schedule)
    )
    if accumulate_steps == 1:
        return transformation
    return optax.MultiSteps(transformation, accumulate_steps).gradient_transformation()
