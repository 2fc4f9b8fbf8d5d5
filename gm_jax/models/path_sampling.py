"""Samplers of continuous paths around a model: clipped predictions, and examples one by one where steps adapt."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax.ops.gaussian_path import GaussianPath
from gm_jax.ops.predictions import Prediction, prediction_from_x0
from gm_jax.samplers.ode import PredictFn
from gm_jax.types import Array, Key


class PathSampler(NamedTuple):
    """How samples are drawn.

    Attributes:
        draw: (key, predict_fn, path, x_T [B, ...]) -> x_0 [B, ...].
        clip: the range to which predictions of x_0 are clipped; None for the model as it is.
        one_by_one: whether each example needs steps of its own: `draw` then sees batches of one.
    """

    draw: Callable[[Key, PredictFn, GaussianPath, Array], Array]
    clip: tuple[float, float] | None = None
    one_by_one: bool = False


def draw_on_path(
    sampler: PathSampler,
    make_predict_fn: Callable[[Array | None], PredictFn],
    path: GaussianPath,
    key: Key,
    x_T: Array,
    label: Array | None,
) -> Array:
    """Draws samples [B, ...].

    Args:
        sampler: how.
        make_predict_fn: labels [B] or None -> the model's predictions.
        path: of the model.
        key: noise of the sampler.
        x_T: [B, ...] noise at the last time.
        label: [B], or None for samples without labels.
    """

    def draw(x_T: Array, label: Array | None) -> Array:
        return sampler.draw(key, clipped(make_predict_fn(label), path, sampler.clip), path, x_T)

    if not sampler.one_by_one:
        return draw(x_T, label)
    if label is None:
        return jax.vmap(lambda x: draw(x[None], None)[0])(x_T)
    return jax.vmap(lambda x, label: draw(x[None], label[None])[0])(x_T, label)


def clipped(predict_fn: PredictFn, path: GaussianPath, clip: tuple[float, float] | None) -> PredictFn:
    """Clips each predicted x_0 to the range of the data, and adapts eps to it; None leaves predictions unchanged."""
    if clip is None:
        return predict_fn

    def predict(x_t: Array, t: Array) -> Prediction:
        x_0 = jnp.clip(predict_fn(x_t, t).x_0, *clip)
        return prediction_from_x0(x_t, x_0, path.signal(t), path.noise(t))

    return predict
