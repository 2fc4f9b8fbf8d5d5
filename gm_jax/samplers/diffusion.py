"""The loop of diffusion samplers: falling times, at each a prediction and a step (`ddpm.py` and `ddim.py`).

Notation as in `ops.diffusion_process`: times t = 1 ... T counted from 1, t = 0 the data, s < t the next time to visit;
x0_hat and eps_hat are a model's prediction from x_t.

The loop visits any falling times t_1 > t_2 > ... > t_N >= 1 and then 0. It reads the time after t_i, t_(i+1), from the
given times and never computes it from a stride; all coefficients belong to that pair.

A model takes part as `predict_fn`, which returns a `Prediction` of both data and noise, independent of what its network
is trained to predict:

    def predict_fn(x_t, t):
        return predictions.prediction_from_eps(x_t, network(x_t, t), schedule.signal(t), schedule.noise(t))

    x_0 = sample(partial(ddim_step, eta=0.0), predict_fn, schedule, key, x_T, trailing_times(T, 50), clip=(-1, 1))

The noise of the step from t is drawn with `fold_in(key, t)`, a function of the time alone.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.ops import diffusion_process
from gm_jax.ops.diffusion_process import Schedule
from gm_jax.ops.predictions import Prediction, prediction_from_x0
from gm_jax.types import Array, Key

_Kept = TypeVar("_Kept")

# (x_t [B, ...], t [B] int32) -> the model's prediction of data and noise
PredictFn = Callable[[Array, Array], Prediction]
# (key, x_t [B, ...], prediction, log abar_s, log abar_t, scalars) -> x_s [B, ...]
StepFn = Callable[[Key, Array, Prediction, Array, Array], Array]


class Sampler(NamedTuple):
    """How samples are drawn.

    Attributes:
        step_fn: a step, its settings bound.
        times: the times to visit, falling, in 1 ... T.
    """

    step_fn: StepFn
    times: np.ndarray


class Trajectory(NamedTuple):
    """The states of a sampler at the N visited times.

    Attributes:
        x_0: [B, ...] the samples.
        x_t: [N, B, ...] where each step began; x_T first.
        x0_hat: [N, B, ...] the prediction of x_0 there, clipped if the sampler clips.
    """

    x_0: Array
    x_t: Array
    x0_hat: Array


def sample(
    step_fn: StepFn,
    predict_fn: PredictFn,
    schedule: Schedule,
    key: Key,
    x_T: Array,
    times: Sequence[int] | np.ndarray,
    *,
    clip: tuple[float, float] | None,
) -> Array:
    """Samples x_0 from x_T, with one prediction and one step for each time.

    Args:
        step_fn: `partial(ancestral_step, variance_fn=...)` or `partial(ddim_step, eta=...)`.
        predict_fn: (x_t [B, ...], t [B] int32) -> Prediction.
        schedule: of T steps.
        key: the step from t draws with `fold_in(key, t)`.
        x_T: [B, ...] the state at the first time: standard normal noise if that is T, otherwise data diffused to it.
        times: t_1 > t_2 > ... > t_N, each in 1 ... T, for example `trailing_times`. After t_N comes 0.
        clip: the range of the data. Each predicted x_0 is clipped to it, and eps adapted to the clipped x_0; None
            leaves predictions unchanged. The two are different samplers: for images, whose x_0 is predicted with large
            errors from eps at large t, clipping is part of the method.
    Returns:
        [B, ...] x_0, in the dtype of `x_T`.
    Raises:
        AssertionError: shapes do not fit or `x_T` is not floating.
        ValueError: the times do not fall, or leave 1 ... T.
    """
    return _reverse(step_fn, predict_fn, schedule, key, x_T, times, clip=clip, keep=lambda x_t, x0_hat: None)[0]


def sample_trajectory(
    step_fn: StepFn,
    predict_fn: PredictFn,
    schedule: Schedule,
    key: Key,
    x_T: Array,
    times: Sequence[int] | np.ndarray,
    *,
    clip: tuple[float, float] | None,
) -> Trajectory:
    """Draws the same samples as `sample` and keeps every state: for pictures, because it keeps 2 N times the memory.

    Args:
        step_fn: as in `sample`.
        predict_fn: as in `sample`.
        schedule: as in `sample`.
        key: as in `sample`.
        x_T: as in `sample`.
        times: as in `sample`.
        clip: as in `sample`.
    Returns:
        The trajectory.
    Raises:
        AssertionError: as in `sample`.
        ValueError: as in `sample`.
    """
    keep = lambda x_t, x0_hat: (x_t, x0_hat)  # noqa: E731
    x_0, (x_t, x0_hat) = _reverse(step_fn, predict_fn, schedule, key, x_T, times, clip=clip, keep=keep)
    return Trajectory(x_0, x_t, x0_hat)


def trailing_times(num_steps: int, num_times: int) -> np.ndarray:
    """Lists N times at equal distances from T down to T / N, so that all steps have one length, the last one included.

    Args:
        num_steps: T.
        num_times: N, at most T.
    Returns:
        [N] int32, falling.
    Raises:
        ValueError: `num_times` is not in 1 ... T.
    Source: Song, Meng & Ermon, ICLR 2021, arXiv:2010.02502, section 4.2 and appendix D; the name, and why T must be
        among them: Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", WACV 2024,
        arXiv:2305.08891.
    """
    if not 1 <= num_times <= num_steps:
        raise ValueError(f"num_times must be in 1 ... {num_steps}: got {num_times}.")
    return np.rint(np.arange(num_times, 0, -1) * (num_steps / num_times)).astype(np.int32)


def _reverse(
    step_fn: StepFn,
    predict_fn: PredictFn,
    schedule: Schedule,
    key: Key,
    x_T: Array,
    times: Sequence[int] | np.ndarray,
    *,
    clip: tuple[float, float] | None,
    keep: Callable[[Array, Array], _Kept],
) -> tuple[Array, _Kept]:
    """Computes x_0, and stacks what `keep` makes of every x_t and predicted x_0 on the way."""
    chex.assert_type(x_T, float)
    times = _checked_times(times, schedule.num_steps)
    # Rounded to the dtype of x only here, so that the loop carries one dtype.
    log_alpha_bar_t = schedule.at(times).astype(x_T.dtype)
    log_alpha_bar_s = schedule.at(np.append(times[1:], 0)).astype(x_T.dtype)

    def step(x_t: Array, now: tuple[Array, Array, Array]) -> tuple[Array, _Kept]:
        t, log_alpha_bar_s, log_alpha_bar_t = now
        prediction = predict_fn(x_t, jnp.full(x_t.shape[:1], t))
        if clip is not None:
            x0_hat = jnp.clip(prediction.x_0, *clip)
            prediction = prediction_from_x0(x_t, x0_hat, *diffusion_process.signal_and_noise(log_alpha_bar_t))
        x_s = step_fn(jax.random.fold_in(key, t), x_t, prediction, log_alpha_bar_s, log_alpha_bar_t)
        return x_s.astype(x_t.dtype), keep(x_t, prediction.x_0)

    return jax.lax.scan(step, x_T, (jnp.asarray(times), log_alpha_bar_s, log_alpha_bar_t))


def _checked_times(times: Sequence[int] | np.ndarray, num_steps: int) -> np.ndarray:
    times = np.asarray(times)
    if times.ndim != 1 or times.size == 0 or not np.issubdtype(times.dtype, np.integer):
        raise ValueError(f"times must be a vector of at least one integer: got {times.dtype} {times.shape}.")
    if np.any(np.diff(times) >= 0) or times[0] > num_steps or times[-1] < 1:
        raise ValueError(f"times must fall from at most {num_steps} to at least 1: got {times}.")
    return times.astype(np.int32)
