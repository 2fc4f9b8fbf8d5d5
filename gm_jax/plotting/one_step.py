"""Models of one step as pictures: samples by the number of steps, next to those of the flow that they shorten."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

import jax.numpy as jnp

from gm_jax.models.consistency import ConsistencyModel
from gm_jax.models.meanflow import MeanFlow
from gm_jax.models.path_sampling import PathSampler
from gm_jax.models.score import ScoreModel
from gm_jax.plotting.layout import Grid
from gm_jax.samplers import ode, time_grids
from gm_jax.types import Array, Key, ModelState, Params

NUM_STEPS = (1, 2, 4)  # rows of `samples_by_steps`
FLOW_STEPS = 30  # of the last row


def grids(
    model: MeanFlow | ConsistencyModel, flow: ScoreModel
) -> Mapping[str, Callable[[Params, ModelState, Key, Array], Grid]]:
    """Lists the pictures of an image model: functions (params, model_state, key, x) -> Grid.

    Args:
        model: a model of images; for other data there are no pictures.
        flow: the model of many steps inside.
    Returns:
        `samples_by_steps` by name.
    """
    if len(flow.shape) != 3:
        return {}
    return {"samples_by_steps": partial(samples_by_steps, model, flow)}


def samples_by_steps(
    model: MeanFlow | ConsistencyModel, flow: ScoreModel, params: Params, model_state: ModelState, key: Key, x: Array
) -> Grid:
    """Draws samples from the same ten x_T in every row: with 1, 2 and 4 steps, and by the flow in 30 steps of Heun."""

    def solve(key: Key, predict_fn: ode.PredictFn, path: ode.GaussianPath, x_T: Array) -> Array:
        times = time_grids.karras(path, FLOW_STEPS)
        return ode.denoise(predict_fn, ode.heun(predict_fn, path, x_T, times), times[-1])

    rows = [
        dataclasses.replace(model, num_steps=count).model.sample(params, model_state, key, 10) for count in NUM_STEPS
    ]
    by_flow = dataclasses.replace(flow, sampler=PathSampler(solve, flow.sampler.clip))
    rows.append(by_flow.sample(params, model_state, key, 10))
    return Grid(
        jnp.stack(rows),
        title="Samples by the number of steps, from the same noise in each column",
        rows=(*(f"{count} step{'s' * (count > 1)}" for count in NUM_STEPS), f"flow, {FLOW_STEPS} steps"),
    )
