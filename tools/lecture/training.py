"""A short training of a family, with its states along the way."""

from collections.abc import Iterator, Mapping

import jax
import numpy as np
import optax

from gm_jax.data import pipeline
from gm_jax.training import parallel, state, step
from gm_jax.training.state import TrainState
from gm_jax.types import Model


def train(
    model: Model,
    data: Mapping[str, np.ndarray],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float = 1e-3,
    optimizers: Mapping[str, optax.GradientTransformation] | None = None,
    seed: int = 0,
) -> TrainState:
    """Trains with Adam, or given optimisers, and returns the last state."""
    *_, last = states(
        model,
        data,
        steps=steps,
        every=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizers=optimizers,
        seed=seed,
    )
    return last


def states(
    model: Model,
    data: Mapping[str, np.ndarray],
    *,
    steps: int,
    every: int,
    batch_size: int,
    learning_rate: float = 1e-3,
    optimizers: Mapping[str, optax.GradientTransformation] | None = None,
    seed: int = 0,
) -> Iterator[TrainState]:
    """Yields the state at step 0 and after every `every` steps."""
    players = {objective.wrt: optax.adam(learning_rate) for objective in model.objectives}
    players |= dict(optimizers or {})
    strategy = parallel.jit()
    take = strategy.compile(step.make_train_step(model, players, seed=seed, axis_name=strategy.axis_name))
    first = {name: array[0] for name, array in pipeline.train_batches(data, batch_size, seed, 0, 1).items()}
    current = strategy.place(state.create(model, players, jax.random.key(seed), first))
    yield _copy(current)
    for start in range(0, steps, every):
        batches = pipeline.train_batches(data, batch_size, seed, start, every)
        current, _ = take(current, strategy.place_batches(batches))
        yield _copy(current)


def _copy(current: TrainState) -> TrainState:
    """Copies a state, because the next step reuses its memory."""
    return jax.tree.map(jax.numpy.copy, current)
