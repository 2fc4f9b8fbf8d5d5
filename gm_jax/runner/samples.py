"""Samples of a run: in one call, or in batches if they are many."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gm_jax import signals
from gm_jax.data import captions
from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.runner.run import Run
from gm_jax.training import parallel
from gm_jax.training.state import TrainState
from gm_jax.types import Array

BATCH = 500  # samples at a time, so that memory does not grow with their number


def label_rows(spec: Spec, label: Any, num: int) -> np.ndarray:
    """Returns [num] int32 labels from a class, or from one for each sample.

    Raises:
        UserError: the data have no such class, or there is not one for each sample.
    """
    rows, classes = np.asarray(label), spec.num_classes or 0
    if not np.issubdtype(rows.dtype, np.integer) or rows.shape not in ((), (num,)):
        raise UserError(f"label is {rows.dtype} {list(rows.shape)}: give a class, or [{num}] integers.")
    wrong = rows[(rows < 0) | (rows >= classes)]
    if wrong.size:
        use = f"use a label from 0 to {classes - 1}" if classes else "leave --label out"
        raise UserError(f"--label {wrong.flat[0]} does not exist: {spec.name} has {classes} classes; {use}.")
    return np.full(num, rows, np.int32)


def prompt_rows(spec: Spec, prompt: str | Sequence[str], num: int) -> np.ndarray:
    """Returns [num, L] int32 tokens of a prompt, or of one for each sample.

    Raises:
        UserError: the data have no captions, a prompt cannot be read, or there is not one for each sample.
    """
    if spec.tokens is None:
        raise UserError(f"--prompt needs a run on captions, and {spec.name} has none: leave it out.")
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if len(prompts) not in (1, num):
        raise UserError(f"there are {len(prompts)} prompts for {num} samples: give one, or {num}.")
    rows = np.stack([captions.encode(text) for text in prompts])
    return np.ascontiguousarray(np.broadcast_to(rows, (num, spec.tokens)))


def label_options(spec: Spec, num: int, label: Any, prompt: str | Sequence[str] | None = None) -> dict[str, Any]:
    """Returns the label of the model's `sample` as its option: rows of a label or of a prompt; empty without both.

    Raises:
        UserError: both are given, or one does not fit the data.
    """
    if label is not None and prompt is not None:
        raise UserError("--label and --prompt are two ways to say what to draw: leave one out.")
    if prompt is not None:
        return {"label": prompt_rows(spec, prompt, num)}
    return {} if label is None else {"label": label_rows(spec, label, num)}


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


def draw_means(run: Run, mean: Callable[..., Array], state: TrainState, num: int, *, seed: int) -> np.ndarray:
    """Returns [num, ...] means of the distributions that `draw_samples` draws from with the same seed.

    Args:
        run: whose model.
        mean: (params, model_state, key, num) -> the means, see `Experiment.sample_mean`.
        state: its state.
        num: how many.
        seed: of the samples.
    """
    state = parallel.local(state)
    key = jax.random.key(seed)
    return np.asarray(jax.jit(mean, static_argnums=3)(state.eval_params, state.model_state, key, num))


def draw_many(run: Run, state: TrainState, num: int, *, seed: int, **options: Any) -> np.ndarray:
    """Returns [num, ...] samples, drawn in batches if they are more than one; a batch is what `draw_samples` draws.

    Args:
        run: whose model.
        state: its state.
        num: how many; the samples before the last batch do not depend on it.
        seed: of the samples.
        **options: as for `draw_samples`.

    Raises:
        KeyboardInterrupt: a signal has asked this process to stop.
    """
    signals.check()
    if num <= BATCH:
        drawn = draw_samples(run, state, num, seed=seed, **options)
        signals.check()
        return drawn
    state, key = parallel.local(state), jax.random.key(seed)
    sample = jax.jit(run.experiment.model.sample, static_argnums=3)
    batches = []
    for batch, start in enumerate(range(0, num, BATCH)):
        signals.check()
        # Whole batches, so that one program draws them all; what is too many at the end is dropped.
        rows = np.minimum(np.arange(start, start + BATCH), num - 1)
        given = {name: value[rows] if np.ndim(value) else value for name, value in options.items()}
        batch_key = jax.random.fold_in(key, batch) if batch else key
        batches.append(np.asarray(sample(state.eval_params, state.model_state, batch_key, BATCH, **given)))
    signals.check()
    return np.concatenate(batches)[:num]
