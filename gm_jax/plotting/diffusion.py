"""The chains of a diffusion model as pictures: data into noise, noise into data, and samples by the number of steps."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models.diffusion import Diffusion
from gm_jax.models.path_sampling import PathSampler
from gm_jax.models.score import ScoreModel
from gm_jax.ops import diffusion_process
from gm_jax.plotting.layout import Grid
from gm_jax.samplers.ddim import ddim
from gm_jax.types import Array, Key, ModelState, Params

NUM_STEPS = (10, 20, 50, 100)  # rows of `samples_by_steps`; T follows
WEIGHTS = (-1.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # rows of `guidance`; -1 is the unconditional model


def grids(model: Diffusion) -> Mapping[str, Callable[[Params, ModelState, Key, Array], Grid]]:
    """Lists the pictures of an image model: functions (params, model_state, key, x) -> Grid.

    Args:
        model: a model of images; for other data there are no pictures.
    Returns:
        `forward_chain`, `reverse_chain` and `samples_by_steps` by name; for models with labels also `classes` and
        `guidance`.
    """
    if len(model.shape) != 3:
        return {}
    pictures = [forward_chain, reverse_chain, samples_by_steps]
    if model.num_classes is not None:
        pictures += [classes, guidance]
    return {picture.__name__: partial(picture, model) for picture in pictures}


def forward_chain(model: Diffusion, params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
    """Draws a row for each of the first ten x: data becoming noise from left to right."""
    times = chain_times(model.schedule.num_steps, 10)
    return Grid(
        model.space.to_data(diffuse_along(model, key, x[:10], jnp.asarray(times))),
        title=f"Forward chains: pictures of the data (left) become noise in {model.schedule.num_steps:,} steps.",
        columns=tuple(f"t = {time}" for time in times),
    )


def reverse_chain(model: Diffusion, params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
    """Draws two rows for each of five samples, from noise to data: x_t above, the predicted x_0 below."""
    num_steps = model.schedule.num_steps
    if isinstance(model.sampler, PathSampler):  # it has no trajectory
        model = dataclasses.replace(model, sampler=ddim(model.schedule, min(100, num_steps)))
    chain = model.trajectory(params, model_state, key, 5)
    visited = len(chain.x_t)
    # The visited time nearest to each of the times; the last picture is the sample.
    steps = visited - np.rint(chain_times(num_steps, 10)[:0:-1] * (visited / num_steps)).astype(np.int32)
    steps = np.clip(steps, 0, visited - 1)
    x_t = jnp.concatenate([chain.x_t[steps], chain.x_0[None]])
    x0_hat = jnp.concatenate([chain.x0_hat[steps], chain.x_0[None]])
    rows = jnp.stack([x_t, x0_hat], axis=2)  # [10, 5, 2, ...]
    times = [round((visited - step) * num_steps / visited) for step in steps]
    return Grid(
        model.space.to_data(jnp.moveaxis(rows, 0, 2).reshape(10, 10, *model.shape)),
        title="Reverse chains: noise (left) becomes samples (right). Below each state x_t: the x_0 that the network "
        "predicts from it.",
        rows=("x_t", "x_0 predicted"),
        columns=(*(f"t = {time}" for time in times), "sample"),
        group=2,
    )


def samples_by_steps(model: Diffusion, params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
    """Draws samples from the same ten x_T in every row, by DDIM with 10, 20, 50, 100 and T steps."""
    num_steps = model.schedule.num_steps

    def row(count: int) -> Array:
        by_ddim = dataclasses.replace(model, sampler=ddim(model.schedule, count))
        return by_ddim.sample(params, model_state, key, 10)

    counts = (*(n for n in NUM_STEPS if n < num_steps), num_steps)
    return Grid(
        jnp.stack([row(count) for count in counts]),
        title="Samples by the number of steps of DDIM, from the same noise in each column",
        rows=tuple(f"{count:,} steps" for count in counts),
    )


def classes(model: Diffusion | ScoreModel, params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
    """Draws a row of ten samples for each class."""
    label = jnp.repeat(jnp.arange(model.num_classes), 10)
    samples = model.sample(params, model_state, key, len(label), label=label)
    return Grid(
        samples.reshape(-1, 10, *model.shape),
        title="Samples of each class",
        rows=tuple(f"class {index}" for index in range(model.num_classes or 0)),
    )


def guidance(model: Diffusion, params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
    """Draws a sample of each class from the same x_T in every row, guided by each of WEIGHTS from top to bottom."""
    label = jnp.arange(model.num_classes)

    def row(weight: Array) -> Array:
        guided = dataclasses.replace(model, guidance=weight)
        return guided.sample(params, model_state, key, len(label), label=label)

    names = {-1.0: "no label", 0.0: "w = 0 (no guidance)"}
    return Grid(
        jax.vmap(row)(jnp.asarray(WEIGHTS)),
        title="Guidance: samples of each class from the same noise in each column, guided with weight w",
        rows=tuple(names.get(weight, f"w = {weight:g}") for weight in WEIGHTS),
        columns=tuple(f"class {index}" for index in range(model.num_classes or 0)),
    )


def chain_times(num_steps: int, num_times: int) -> np.ndarray:
    """Lists times from 0 to T, both included, dense near the data, because most changes are visible early.

    Args:
        num_steps: T.
        num_times: how many.
    Returns:
        [num_times] int32, rising.
    """
    return np.rint(num_steps * np.linspace(0.0, 1.0, num_times) ** 2).astype(np.int32)


def diffuse_along(model: Diffusion, key: Key, x: Array, times: Array) -> Array:
    """Draws one chain of q(x_t | x_s) from each x, seen at some times.

    Args:
        model: gives the space and the schedule.
        key: noise.
        x: [B, ...] as the data set ships it.
        times: [N] rising, in 0 ... T.
    Returns:
        [B, N, ...] x_t.
    """
    x_0 = model.space.prepare(x)
    before = jnp.concatenate([jnp.zeros(1, times.dtype), times[:-1]])

    def move(x_s: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        log_alpha_bars = tuple(model.schedule.at(time) for time in now)
        mean = diffusion_process.transition_mean(x_s, *log_alpha_bars)
        std = jnp.sqrt(diffusion_process.transition_variance(*log_alpha_bars))
        x_t = mean + std * jax.random.normal(jax.random.fold_in(key, now[1]), x_s.shape, x_s.dtype)
        return x_t, x_t

    return jnp.moveaxis(jax.lax.scan(move, x_0, (before, times))[1], 0, 1)
