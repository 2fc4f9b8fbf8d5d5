"""Learning-rate schedules, gradient clipping, optimisers and gradient accumulation, composed from optax."""

import itertools
import math
from collections.abc import Sequence

import jax
import optax

from gm_jax.types import PyTree

Schedule = optax.Schedule


def constant_schedule(learning_rate: float, *, warmup_steps: int = 0) -> Schedule:
    """Returns a linear warm-up from 0 over `warmup_steps` updates, then a constant."""
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps must not be negative, got {warmup_steps}")
    if warmup_steps == 0:
        return optax.constant_schedule(learning_rate)
    return optax.linear_schedule(0.0, learning_rate, warmup_steps)


def cosine_schedule(learning_rate: float, *, num_steps: int, warmup_steps: int = 0) -> Schedule:
    """Returns a linear warm-up from 0, then half a cosine down to 0 at `num_steps` updates.

    Source: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017,
    arXiv:1608.03983, eq. 5, without restarts.
    """
    if not 0 <= warmup_steps < num_steps:
        raise ValueError(f"warmup_steps must be less than num_steps = {num_steps} and not negative, got {warmup_steps}")
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup_steps else learning_rate, learning_rate, warmup_steps, num_steps
    )


def linear_schedule(learning_rate: float, *, num_steps: int, warmup_steps: int = 0) -> Schedule:
    """Returns a linear warm-up from 0, then a straight line down to 0 at `num_steps` updates."""
    if not 0 <= warmup_steps < num_steps:
        raise ValueError(f"warmup_steps must be less than num_steps = {num_steps} and not negative, got {warmup_steps}")
    return _after_warmup(
        optax.linear_schedule(learning_rate, 0.0, num_steps - warmup_steps), learning_rate, warmup_steps
    )


def exponential_schedule(learning_rate: float, *, decay_rate: float, warmup_steps: int = 0) -> Schedule:
    """Returns a linear warm-up from 0, then a rate that is multiplied by `decay_rate` at each update.

    Raises:
        ValueError: decay_rate is not in (0, 1].
    """
    if not 0.0 < decay_rate <= 1.0:
        raise ValueError(f"decay_rate must be more than 0 and at most 1, got {decay_rate}")
    # By the decay of many updates, because in float32 the 10^6th power of 0.999995 would be wrong by 3 %.
    steps = 1 if decay_rate == 1.0 else max(1, round(-1.0 / math.log(decay_rate)))
    decay = optax.exponential_decay(learning_rate, steps, decay_rate**steps)
    return _after_warmup(decay, learning_rate, warmup_steps)


def step_schedule(
    learning_rate: float, *, boundaries: Sequence[int], factors: Sequence[float], warmup_steps: int = 0
) -> Schedule:
    """Returns a linear warm-up from 0, then a constant that changes at some updates.

    Args:
        learning_rate: the first constant.
        boundaries: the updates from which on the rate is another one, counted from 0 as the warm-up is.
        factors: what the rate is then, as a share of `learning_rate`.
        warmup_steps: updates of the warm-up, at most the first boundary.

    Raises:
        ValueError: there are not as many factors as boundaries, or these do not increase from the warm-up's end.
    """
    if len(boundaries) != len(factors):
        raise ValueError(f"expected a factor for each of {len(boundaries)} boundaries, got {len(factors)}")
    ends = [warmup_steps, *boundaries]
    if any(later <= earlier for earlier, later in itertools.pairwise(ends)):
        raise ValueError(f"boundaries must increase from the end of the warm-up, {warmup_steps}, got {boundaries}")
    constants = [optax.constant_schedule(learning_rate * factor) for factor in (1.0, *factors)]
    after = [boundary - warmup_steps for boundary in boundaries]
    return _after_warmup(optax.join_schedules(constants, after), learning_rate, warmup_steps)


def _after_warmup(schedule: Schedule, learning_rate: float, warmup_steps: int) -> Schedule:
    """Returns a schedule that starts, at `learning_rate`, after a linear warm-up from 0."""
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps must not be negative, got {warmup_steps}")
    if warmup_steps == 0:
        return schedule
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, schedule], [warmup_steps])


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Clips the gradient: scales it down to a global norm of `max_norm` if it is larger.

    Raises:
        ValueError: max_norm is not positive.

    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
    arXiv:1211.5063.
    """
    if not max_norm > 0.0:
        raise ValueError(f"clip_norm must be positive, or None for no clipping, got {max_norm}")
    return optax.clip_by_global_norm(max_norm)


class Accumulated(optax.GradientTransformation):
    """A transformation that makes one update of the mean gradient of `accumulate_steps` calls; see `accumulate`."""

    accumulate_steps: int

    def __new__(cls, transformation: optax.GradientTransformation, accumulate_steps: int) -> "Accumulated":
        """Marks a transformation that accumulates already."""
        self = super().__new__(cls, *transformation)
        self.accumulate_steps = accumulate_steps
        return self


def accumulate(transformation: optax.GradientTransformation, num_steps: int) -> optax.GradientTransformation:
    """Makes one update of the mean gradient of every `num_steps` calls; the other calls leave the parameters alone.

    The train step averages parameters (EMA) only when they change, which it learns from the returned type. This must
    therefore be the outermost transformation.

    Raises:
        ValueError: num_steps is less than one.
    """
    if num_steps < 1:
        raise ValueError(f"accumulate_steps must be at least 1, got {num_steps}")
    if num_steps == 1:
        return transformation
    return Accumulated(optax.MultiSteps(transformation, num_steps).gradient_transformation(), num_steps)


def accumulate_steps(transformation: optax.GradientTransformation) -> int:
    """Returns the number of calls per update of a transformation: 1, unless `accumulate` made it."""
    return transformation.accumulate_steps if isinstance(transformation, Accumulated) else 1


def refuse_hidden_accumulation(transformation: optax.GradientTransformation, opt_state: PyTree, params: PyTree) -> None:
    """Refuses a transformation that updates nothing at most steps, but does not report it by its type.

    An average of the parameters would move at every step. A transformation that accumulates only a part of the
    parameters is admitted, because the others change at every step.

    Args:
        transformation: of one player.
        opt_state: its state.
        params: the parameters that it updates.

    Raises:
        ValueError: it accumulates the gradients of all parameters, and `accumulate` did not make it.
    """
    if isinstance(transformation, Accumulated):
        return

    def accumulates(node: PyTree) -> bool:
        return isinstance(node, (optax.MultiStepsState, optax.ApplyEvery))

    for node in jax.tree.leaves(opt_state, is_leaf=accumulates):
        if accumulates(node):
            sums = node.acc_grads if isinstance(node, optax.MultiStepsState) else node.grad_acc
            if len(jax.tree.leaves(sums)) == len(jax.tree.leaves(params)):
                raise ValueError(
                    f"the optimiser accumulates gradients ({type(node).__name__}), but the average of the parameters "
                    "cannot see when they change: make it with training.optimizers.accumulate, or mark it as "
                    "training.optimizers.Accumulated."
                )


def optimizer(
    scaling: optax.GradientTransformation,
    schedule: Schedule,
    *,
    weight_decay: float = 0.0,
    l2: float = 0.0,
    clip_norm: float | None = None,
    accumulate_steps: int = 1,
) -> optax.GradientTransformation:
    """Returns an optimiser with optional gradient clipping, weight decay of both kinds and gradient accumulation.

    Args:
        scaling: of the gradient, e.g. `optax.scale_by_adam()`.
        schedule: learning rate as a function of the number of updates.
        weight_decay: decoupled decay (AdamW), times the learning rate.
        l2: coupled decay: l2 times the parameters joins the clipped gradient, before the moments.
        clip_norm: largest global norm of the gradient (`clip_by_global_norm`); None for no clipping.
        accumulate_steps: steps whose mean gradient makes one update.

    Raises:
        ValueError: clip_norm is not positive, or accumulate_steps is less than one.

    Source: Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101.
    """
    clip = [] if clip_norm is None else [clip_by_global_norm(clip_norm)]
    coupled = [] if l2 == 0.0 else [optax.add_decayed_weights(l2)]
    decay = [] if weight_decay == 0.0 else [optax.add_decayed_weights(weight_decay)]
    transformation = optax.chain(*clip, *coupled, scaling, *decay, optax.scale_by_learning_rate(schedule))
    return accumulate(transformation, accumulate_steps)


def adam(
    schedule: Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    l2: float = 0.0,
    clip_norm: float | None = None,
    accumulate_steps: int = 1,
) -> optax.GradientTransformation:
    """Returns Adam.

    Args:
        schedule: learning rate as a function of the number of updates.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        weight_decay: as in `optimizer`.
        l2: as in `optimizer`.
        clip_norm: as in `optimizer`.
        accumulate_steps: as in `optimizer`.

    Source: Kingma & Ba, "Adam", ICLR 2015, arXiv:1412.6980.
    """
    return optimizer(
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        schedule,
        weight_decay=weight_decay,
        l2=l2,
        clip_norm=clip_norm,
        accumulate_steps=accumulate_steps,
    )


def sgd(schedule: Schedule, *, momentum: float = 0.0) -> optax.GradientTransformation:
    """Returns stochastic gradient descent.

    Args:
        schedule: learning rate as a function of the number of updates.
        momentum: decay of the sum of past gradients; 0 for none.

    Source: Robbins & Monro 1951; Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    """
    return optax.sgd(schedule, momentum=momentum or None)
