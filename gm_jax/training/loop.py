"""The loop around the step: calls, metrics, validation, checkpoints, signals. Its effects are given as functions.

One iteration is one call of the compiled step, `steps_per_call` steps long. Because JAX dispatches asynchronously, a
few calls run ahead of the host. The metrics of every step are checked when they arrive, so that a loss that is not a
number stops the run before it saves a later state.

Several processes run this loop in lockstep and must stop at the same step. A signal reaches one of them. Its vote to
stop travels to the others with the batch and returns, counted, with the metrics (`counting_votes`). No process waits
for it: all see the same count at the same call, and all stop there, `RUN_AHEAD` calls later.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.training import metrics as metrics_lib
from gm_jax.training.state import TrainState
from gm_jax.training.step import TrainStep
from gm_jax.types import Batch, Metrics

# Calls in flight. More gain nothing, and virtual CPU devices deadlock if many calls in flight contain a collective.
RUN_AHEAD = 2

# Name of the batch's leaf that holds the votes to stop, and of the metric that is their mean.
VOTES = "stop_votes"


class Schedule(NamedTuple):
    """The steps at which a run logs, validates, saves and ends.

    Attributes:
        num_steps: steps of the whole run.
        steps_per_call: steps in one call of the compiled step; it divides the other three.
        log_every: steps from one line of metrics to the next.
        checkpoint_every: steps from one validation and checkpoint to the next.
    """

    num_steps: int
    steps_per_call: int
    log_every: int
    checkpoint_every: int


def make_schedule(*, num_steps: int, steps_per_call: int, log_every: int, checkpoint_every: int) -> Schedule:
    """Makes a schedule whose calls end exactly where something happens.

    `steps_per_call` is lowered to a divisor of the other three, because a shorter call would compile the step again.
    """
    common = math.gcd(num_steps, log_every, checkpoint_every)
    steps_per_call = max(size for size in range(1, min(steps_per_call, common) + 1) if common % size == 0)
    return Schedule(num_steps, steps_per_call, log_every, checkpoint_every)


class Effects(NamedTuple):
    """The functions through which the loop logs, validates, saves and stops.

    Attributes:
        log: (step, metrics) writes a line; metrics are means over the steps of the call that ends at `step`, of a
            player with a stage over those of its stage.
        validate: (step, state) -> the validation log-probability, larger is better; None if the model has none.
        save: (step, state, validation) saves a checkpoint, or raises NonFiniteError for a state that is not finite; the
            state's buffers are free again when it returns.
        finished: () -> whether to stop early, asked after each validation and at the start.
        interrupted: () -> whether a signal has asked the run to save and stop; several processes vote instead.
        tick: (step) is called after each call, for example by a progress bar.
    """

    log: Callable[[int, dict[str, float]], None]
    validate: Callable[[int, TrainState], float | None]
    save: Callable[[int, TrainState, float | None], None]
    finished: Callable[[], bool] = lambda: False
    interrupted: Callable[[], bool] = lambda: False
    tick: Callable[[int], None] = lambda step: None


def fit(
    state: TrainState,
    train: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    batches: Callable[[int], Batch],
    schedule: Schedule,
    effects: Effects,
) -> TrainState:
    """Trains from `state.step` to the end of the schedule, or until it is asked to stop.

    Args:
        state: the first state; donated.
        train: (state, batches [S, B, ...]) -> (state, metrics [S]), as `parallel` compiles it.
        batches: step -> the batches of the `steps_per_call` steps from it on, placed on the devices.
        schedule: the steps at which the run logs, validates, saves and ends.
        effects: what it calls there.

    Returns:
        The last state. It has been saved, unless no step was taken.

    Raises:
        NonFiniteError: a metric or the state was infinite or not a number; nothing was saved at that step or later.
        ValueError: the state's step is not a multiple of the schedule's `steps_per_call`.
    """
    step = int(state.step)
    if step % schedule.steps_per_call:
        raise ValueError(f"cannot resume from step {step} in calls of {schedule.steps_per_call} steps")
    in_flight: deque[tuple[int, Metrics]] = deque()

    votes = 0.0

    def settle(*, keep: int) -> None:
        nonlocal votes
        while len(in_flight) > keep:
            end, values = in_flight.popleft()
            values = jax.device_get(values)
            votes += float(np.mean(values.pop(VOTES, 0.0)))
            means = metrics_lib.mean_over_steps(values, end)
            if end % schedule.log_every == 0:
                effects.log(end, means)

    saved, finished = step, effects.finished()
    while step < schedule.num_steps and not finished and not votes and not effects.interrupted():
        state, values = train(state, batches(step))
        step += schedule.steps_per_call
        in_flight.append((step, values))
        settle(keep=RUN_AHEAD)
        effects.tick(step)
        if step % schedule.checkpoint_every == 0 or step == schedule.num_steps:
            settle(keep=0)
            effects.save(step, state, effects.validate(step, state))
            saved, finished = step, effects.finished()
    settle(keep=0)
    if saved != step:
        effects.save(step, state, None)
    return state


def counting_votes(step: TrainStep, *, axis_name: str | None) -> TrainStep:
    """Adds a leaf VOTES, [n] zeros or ones, to the batch of a step, and its mean to the metrics."""

    def voting(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        mean = jnp.mean(batch[VOTES])
        if axis_name is not None:
            mean = jax.lax.pmean(mean, axis_name)
        state, metrics = step(state, {name: leaf for name, leaf in batch.items() if name != VOTES})
        return state, {**metrics, VOTES: mean}

    return voting
