"""Training for a time instead of a number of steps: what an equal share for every family is.

The clock counts calls of the train step alone. Compiling, which is over before it starts, validation and everything
else that is not training stop it. The state that is kept is the best on validation; the last, where there is no
likelihood to choose by, or one of kernels on samples alone.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax

from gm_jax.data import pipeline
from gm_jax.runner import evaluate
from gm_jax.runner.run import Run
from gm_jax.training import loop
from gm_jax.training.state import TrainState

_MOST_STEPS = 10**9  # of a schedule that time ends


class Moment(NamedTuple):
    """Where a training stood.

    Attributes:
        seconds: of training.
        step: number of steps.
        value: validation -log p, nats; smaller is better.
    """

    seconds: float
    step: int
    value: float


class Trained(NamedTuple):
    """What came of a training.

    Attributes:
        state: to evaluate.
        step: its step.
        steps: taken in all.
        seconds: of training in all.
        compile_seconds: before the clock started.
        curve: validation over time; empty where there is none.
    """

    state: TrainState
    step: int
    steps: int
    seconds: float
    compile_seconds: float
    curve: list[Moment]


class _Clock:
    """Seconds while it runs."""

    def __init__(self):
        self._passed, self._since = 0.0, None

    def start(self) -> None:
        self._since = time.perf_counter()

    def stop(self) -> None:
        self._passed, self._since = self.seconds(), None

    def seconds(self) -> float:
        return self._passed + (0.0 if self._since is None else time.perf_counter() - self._since)


def train(run: Run, *, seconds: float, validations: int = 8) -> Trained:
    """Train a run for a time.

    Args:
        run: with data; its `config.train.steps` plays no role, its schedules should not depend on it.
        seconds: of training.
        validations: about how many, evenly over the time.
    Raises:
        NonFiniteError: a metric was not finite.
    """
    config = run.config.train
    step_fn = run.train_step()
    size = config.steps_per_call

    def batches(step: int):
        split = run.splits["train"]
        host = pipeline.train_batches(split, config.batch_size, config.seed, step, size, run.strategy.shard)
        return run.strategy.place_batches(host)

    started = time.perf_counter()
    compiled = run.strategy.compile(step_fn)
    call_seconds = _seconds_of_a_call(compiled, run, batches)
    log_prob = run.experiment.validation or run.experiment.model.log_prob
    # Of kernels on samples, which want a bandwidth first, validation says too little to choose by.
    watched = log_prob is not None and run.experiment.calibrate is None
    evaluator = None if not watched else evaluate.evaluator(run, log_prob, seed=config.seed)
    state = run.strategy.place(run.initial_state())
    compile_seconds = time.perf_counter() - started
    every = max(1, round(seconds / validations / call_seconds)) * size
    schedule = loop.Schedule(every * _MOST_STEPS, size, log_every=every, checkpoint_every=every)
    clock, kept, curve = _Clock(), {}, []

    def validate(step: int, state: TrainState) -> float | None:
        jax.block_until_ready(state)
        clock.stop()
        if evaluator is None:
            return None
        curve.append(Moment(clock.seconds(), step, -evaluator(state, "validation").mean))
        return -curve[-1].value

    def save(step: int, state: TrainState, validation: float | None) -> None:
        if validation is None:  # nothing to choose by, or the end between two validations
            validation = validate(step, state)
        if not kept or validation is None or validation > kept["value"]:
            # The buffers are donated to the next step.
            kept.update(state=jax.device_get(state), step=step, value=validation)
        kept["last"] = step
        clock.start()

    effects = loop.Effects(
        log=lambda step, values: None,
        validate=validate,
        save=save,
        interrupted=lambda: clock.seconds() >= seconds,
    )
    clock.start()
    loop.fit(state, compiled, batches, schedule, effects)
    clock.stop()
    return Trained(
        run.strategy.place(kept["state"]), kept["step"], kept["last"], clock.seconds(), compile_seconds, curve
    )


def _seconds_of_a_call(compiled: Callable, run: Run, batches: Callable) -> float:
    """The second call's time; the first compiles. The state that they train is thrown away."""
    state = run.strategy.place(run.initial_state())
    for step in (0, 1):
        started = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, batches(step)))
        passed = time.perf_counter() - started
    return passed
