"""Our train step as experiments run it: `make_train_step`, compiled by `parallel.jit`, on new batches from the host."""

import itertools
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import comparison, timing

if TYPE_CHECKING:
    from gm_jax.types import Model

LEARNING_RATE = 1e-3  # for Adam, on both sides of every benchmark


class Training(NamedTuple):
    """A model, its data and its settings.

    Attributes:
        model: the model whose objectives are trained.
        split: name -> [N, ...] data in host memory.
        batch_size: examples per step.
        steps: steps in one call of the compiled step.
        params: initial parameters; None for the model's own.
        model_state: initial model state; None for the model's own.
        b1: decay of Adam's first moment, for every player.
    """

    model: "Model"
    split: Mapping[str, np.ndarray]
    batch_size: int
    steps: int = 1
    params: Any = None
    model_state: Any = None
    b1: float = 0.9


class Ready(NamedTuple):
    """Everything that a training loop needs.

    Attributes:
        state: the initial state.
        step: (state, batches) -> (state, metrics), compiled at its first call.
        batches: first step -> the batches of one call, on the device.
    """

    state: Any
    step: Callable
    batches: Callable[[int], Any]


def ready(training: Training, parallel_name: str = "jit") -> Ready:
    """Makes state, step and input pipeline as runner/train.py does, with the strategy "jit" or "pmap"."""
    import jax

    from gm_jax.data import pipeline
    from gm_jax.training import optimizers, parallel, state, step

    model, split, size = training.model, training.split, training.batch_size
    schedule = optimizers.constant_schedule(LEARNING_RATE)
    adams = {objective.wrt: optimizers.adam(schedule, b1=training.b1) for objective in model.objectives}
    first = state.create(model, adams, jax.random.key(0), pipeline.train_batch(split, size, 0, 0))
    given = {name: getattr(training, name) for name in ("params", "model_state")}
    first = first._replace(**{name: tree for name, tree in given.items() if tree is not None})
    strategy = {"jit": parallel.jit, "pmap": parallel.pmap}[parallel_name]()

    def batches(first_step: int) -> Any:
        return strategy.place_batches(pipeline.train_batches(split, size, 0, first_step, training.steps))

    train = step.make_train_step(model, adams, seed=0, axis_name=strategy.axis_name)
    return Ready(strategy.place(first), strategy.compile(train), batches)


def make_run(make: Callable[..., Training], args: tuple, xla_flags: str = "", devices: int = 1) -> timing.Run:
    """Makes the training of make(*args) under XLA flags; a unit of work is one call of its step, on new batches.

    With several CPU devices each has its part of the batch, by "pmap".
    """
    timing.add_xla_flags(xla_flags)
    if devices > 1:
        timing.set_devices(devices)
    import jax

    training = make(*args)
    state, step, batches = ready(training, "jit" if devices == 1 else "pmap")
    first_steps = itertools.count(0, training.steps)

    def run(calls: int) -> None:
        nonlocal state
        for first_step in itertools.islice(first_steps, calls):
            state, _ = step(state, batches(first_step))
        jax.block_until_ready(state)

    return run


def compile_seconds(make: Callable[..., Training], args: tuple, xla_flags: str = "") -> float:
    """Measures the wall time of tracing and compiling the step of make(*args)."""
    timing.add_xla_flags(xla_flags)
    state, step, batches = ready(make(*args))
    batch = batches(0)
    start = time.perf_counter()
    step.lower(state, batch).compile()
    return time.perf_counter() - start


def cases(make: Callable[..., Training], args: tuple, flags: Mapping[str, str]) -> dict[str, timing.Case]:
    """Makes a case for each choice of flags, and one with a device for each of several cores, with the first flags."""
    found = {name: timing.Case(make_run, make, args, each) for name, each in flags.items()}
    devices = len(timing.cores())
    if devices > 1:
        found[comparison.SPREAD] = timing.Case(make_run, make, args, next(iter(flags.values())), devices)
    return found


def compiling(make: Callable[..., Training], args: tuple, flags: Mapping[str, str]) -> dict[str, float]:
    """Measures the compile time for each choice of flags, each in a process of its own."""
    return {name: timing.in_own_process(compile_seconds, make, args, each) for name, each in flags.items()}
