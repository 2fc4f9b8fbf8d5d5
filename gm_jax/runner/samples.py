"""Samples of a run."""

from typing import Any

import jax
import numpy as np

from gm_jax.runner.run import Run
from gm_jax.training import parallel
from gm_jax.training.state import TrainState


def draw_samples(run: Run, state: TrainState, num: int, *, seed: int, **options: Any) -> np.ndarray:
    """Returns [num, ...] samples in data space; one process draws them without the others.

    Args:
        run: whose model.
        state: its state.
        num: how many.
        seed: of the samples.
        **options: of the model's `sample`, by name: a label [num], a temperature.
    """
    state = parallel.local(state)
    sample = jax.jit(run.experiment.model.sample, static_argnums=3)
    return np.asarray(sample(state.eval_params, state.model_state, jax.random.key(seed), num, **options))
