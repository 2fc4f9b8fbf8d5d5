"""Trains a run for a fixed time instead of a number of steps, so that every family gets the same share.

The clock counts only calls of the train step; it stops during compilation, validation and everything else. The state
with the best validation is kept. If there is no likelihood to choose by, or only one from kernels on samples, the last
state is kept.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax

from gm_jax import signals
from gm_jax.data import pipeline
from gm_jax.evaluation.likelihood import LikelihoodSummary
from gm_jax.runner import measure
from gm_jax.runner.run import Run
from gm_jax.training import loop
from gm_jax.training.state import TrainState
from gm_jax.types import Batch, LikelihoodKind, Metrics

_MOST_STEPS = 10**9  # for a schedule that ends by time


class Moment(NamedTuple):
    """The validation at one moment of a training.

    Attributes:
        seconds: seconds of training.
        step: number of steps.
        value: validation -log p, nats; smaller is better.
        kind: kind of the log-likelihood, see `types.Likelihood`.
        measure: measure of the log-likelihood.
    """

    seconds: float
    step: int
    value: float
    kind: LikelihoodKind
    measure: str


class Trained(NamedTuple):
    """The result of a training.

    Attributes:
        state: state to evaluate.
        step: step of that state.
        steps: number of steps taken.
        seconds: seconds of training.
        compile_seconds: seconds before the clock started.
        curve: validation over time; empty without a validation.
    """

    state: TrainState
    step: int
    steps: int
    seconds: float
    compile_seconds: float
    curve: list[Moment]


class _Clock:
    """A stopwatch that can be started and stopped repeatedly."""

    def __init__(self):
        self._passed, self._since = 0.0, None

    def start(self) -> None:
        self._since = time.perf_counter()

    def stop(self) -> None:
        self._passed, self._since = self.seconds(), None

    def seconds(self) -> float:
        return self._passed + (0.0 if self._since is None else time.perf_counter() - self._since)


class _Selection:
    """Validates with the clock stopped, and keeps the best state: the effects of the training loop."""

    def __init__(self, clock: _Clock, evaluator: Callable[[TrainState, str], LikelihoodSummary] | None):
        self._clock, self._evaluator = clock, evaluator
        self._best: float | None = None
        self.curve: list[Moment] = []
        self.state, self.step, self.last_step = None, 0, 0

    def validate(self, step: int, state: TrainState) -> float | None:
        """Stops the clock, and returns the validation log-likelihood if there is one."""
        jax.block_until_ready(state)
        self._clock.stop()
        if self._evaluator is None:
            return None
        summary = self._evaluator(state, "validation")
        self.curve.append(Moment(self._clock.seconds(), step, -summary.mean, summary.kind, summary.measure))
        return summary.mean

    def save(self, step: int, state: TrainState, validation: float | None) -> None:
        """Keeps the state if it is the best so far, or if nothing compares states; starts the clock again."""
        if validation is None:  # without a validation, or at the end between two validations
            validation = self.validate(step, state)
        if self._best is None or validation is None or validation > self._best:
            # A copy, because the next step donates the buffers.
            self.state, self.step, self._best = jax.device_get(state), step, validation
        self.last_step = step
        self._clock.start()


def train(run: Run, *, seconds: float, validations: int = 8) -> Trained:
    """Trains a run for a fixed time.

    Args:
        run: with data. `config.train.steps` is ignored, so schedules should not depend on it.
        seconds: seconds of training.
        validations: approximate number of validations, evenly spaced in time.
    Raises:
        NonFiniteError: a metric was not finite.
        KeyboardInterrupt: a signal has asked this process to stop.
    """
    config = run.config.train
    size = config.steps_per_call

    def batches(step: int) -> Batch:
        split, shard, flip = run.loaded["train"], run.strategy.shard, run.config.data.flip
        host = pipeline.train_batches(split, config.batch_size, config.seed, step, size, shard, flip=flip)
        return run.strategy.place_batches(host)

    started = time.perf_counter()
    compiled = run.strategy.compile(run.train_step(run.strategy))
    every = max(1, round(seconds / validations / _seconds_per_call(compiled, run, batches))) * size
    clock = _Clock()
    selection = _Selection(clock, _evaluator(run))
    state = run.strategy.place(run.initial_state())
    compile_seconds = time.perf_counter() - started
    schedule = loop.Schedule(every * _MOST_STEPS, size, log_every=every, checkpoint_every=every)
    effects = loop.Effects(
        log=lambda step, values: None,
        validate=selection.validate,
        save=selection.save,
        interrupted=lambda: signals.requested() or clock.seconds() >= seconds,
    )
    clock.start()
    loop.fit(state, compiled, batches, schedule, effects)
    clock.stop()
    signals.check()
    best = run.strategy.place(selection.state)
    return Trained(best, selection.step, selection.last_step, clock.seconds(), compile_seconds, selection.curve)


def _evaluator(run: Run) -> Callable[[TrainState, str], LikelihoodSummary] | None:
    """Returns the evaluator of the likelihood that chooses the best state; None if the last state is kept."""
    log_prob = run.experiment.validation or run.experiment.model.log_prob
    # A likelihood from kernels needs a calibrated bandwidth, and is too poor an estimate to choose by.
    if log_prob is None or run.experiment.prepare_evaluation is not None:
        return None
    return measure.evaluator(run, log_prob, seed=run.config.train.seed)


def _seconds_per_call(
    compiled: Callable[[TrainState, Batch], tuple[TrainState, Metrics]], run: Run, batches: Callable[[int], Batch]
) -> float:
    """Measures the second call, because the first compiles; the trained state is discarded.

    It is a call of the first stage, if the run has stages.
    """
    state = run.strategy.place(run.initial_state())
    for step in (0, 1):
        started = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, batches(step)))
        passed = time.perf_counter() - started
    return passed
