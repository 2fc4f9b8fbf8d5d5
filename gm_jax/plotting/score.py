"""Score-based models as pictures: data into noise, and samples by the number of steps."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp

from gm_jax.models.path_sampling import PathSampler
from gm_jax.models.score import ScoreModel
from gm_jax.ops.predictions import diffuse, per_example
from gm_jax.plotting.diffusion import classes
from gm_jax.plotting.layout import Grid
from gm_jax.samplers import dpm_solver, ode, time_grids
from gm_jax.types import Array, Key, ModelState, Params

NUM_STEPS = (4, 8, 15, 30, 100)  # rows of `samples_by_steps`


def grids(model: ScoreModel) -> Mapping[str, Callable[[Params, ModelState, Key, Array], Grid]]:
    """Lists the pictures of an image model: functions (params, model_state, key, x) -> Grid.

    Args:
        model: a model of images; for other data there are no pictures.
    Returns:
        `forward_path` and `samples_by_steps` by name; for models with labels also `classes`.
    """
    if len(model.shape) != 3:
        return {}
    pictures = [forward_path, samples_by_steps]
    if model.num_classes is not None:
        pictures.append(classes)
    return {picture.__name__: partial(picture, model) for picture in pictures}


def forward_path(model: ScoreModel, params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
    """Draws a row for each of the first ten x: x_t / a_t at ten times, from the data to noise, with one noise."""
    space_key, noise_key = jax.random.split(key)
    x_0 = model.space.prepare(space_key, x[:10])[0]
    eps = jax.random.normal(noise_key, x_0.shape, x_0.dtype)
    with jax.ensure_compile_time_eval():  # labels are needed while the picture is traced
        times = time_grids.karras(model.path, 10)[::-1]
        ratios = [float(model.path.noise(t) / model.path.signal(t)) for t in times]
    rows = [diffuse(x_0, eps, model.path.signal(t), model.path.noise(t)) for t in times]
    return Grid(
        model.space.to_data(jnp.stack(rows, axis=1).reshape(-1, *model.shape)).reshape(-1, 10, *model.shape),
        title="Forward path: pictures of the data (left) become noise, by the ratio of noise to signal",
        columns=tuple(f"{ratio:.2g}" if ratio < 99.0 else f"{ratio:.0f}" for ratio in ratios),
    )


def samples_by_steps(model: ScoreModel, params: Params, model_state: ModelState, key: Key, x: Array) -> Grid:
    """Draws samples from the same ten x_T in every row, by DPM-Solver++(2M) with 4, 8, 15, 30 and 100 steps."""

    def row(count: int) -> Array:
        def draw(key: Key, predict_fn: ode.PredictFn, path: ode.GaussianPath, x_T: Array) -> Array:
            times = time_grids.uniform_log_snr(path, count)
            return ode.denoise(predict_fn, dpm_solver.dpm_solver_2m(predict_fn, path, x_T, times), times[-1])

        by_count = dataclasses.replace(model, sampler=PathSampler(draw, model.sampler.clip))
        return by_count.sample(params, model_state, key, 10)

    return Grid(
        jnp.stack([row(count) for count in NUM_STEPS]),
        title="Samples by the number of steps of DPM-Solver++(2M), from the same noise in each column",
        rows=tuple(f"{count} steps" for count in NUM_STEPS),
    )


def flow_lines(model: ScoreModel, params: Params, model_state: ModelState, key: Key, n: int) -> Array:
    """Computes [T, n, ...]: samples along the probability flow, at T = 60 times, noise first.

    Each time is scaled to the spread of the data, c / sqrt(a^2 c^2 + s^2).
    """
    path, times = model.path, time_grids.karras(model.path, 60)
    flow = ode.flow_fn(model.predict_fn(params, model_state, None), path)
    x_T = path.noise(times[0]) * jax.random.normal(key, (n, *model.shape))

    def move(x: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        x = ode.heun_step(flow, x, *ends)
        return x, x

    later = jax.lax.scan(move, x_T, (times[:-1], times[1:]))[1]
    spread = jnp.sqrt(jnp.square(path.signal(times) * model.sigma_data) + jnp.square(path.noise(times)))
    return jnp.concatenate([x_T[None], later]) * per_example(model.sigma_data / spread, jnp.zeros((60, 1, 1)))


def score_field(model: ScoreModel, params: Params, model_state: ModelState, x: Array, *, sigma: float) -> Array:
    """Computes the score [N, ...] of data with noise of a standard deviation `sigma` at x [N, ...]."""
    t = model.path.time_at_log_snr(jnp.full(x.shape[:1], -2.0 * jnp.log(sigma)))
    a_t = per_example(model.path.signal(t), x)
    eps = model.predict_fn(params, model_state, None)(a_t * x, t).eps
    return -eps / sigma


def velocity_field(model: ScoreModel, params: Params, model_state: ModelState, x: Array) -> Array:
    """Computes the velocity [N, ...] of the flow in the middle of its path, at x [N, ...] on the scale of the data."""
    path, c = model.path, model.sigma_data
    t = jnp.full(x.shape[:1], sum(path.range) / 2)
    spread = jnp.sqrt(jnp.square(path.signal(t) * c) + jnp.square(path.noise(t)))
    return ode.flow_fn(model.predict_fn(params, model_state, None), path)(per_example(spread / c, x) * x, t)
