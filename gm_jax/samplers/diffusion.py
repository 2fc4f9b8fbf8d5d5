"""Samplers of diffusion models: one function a step, and the one loop that takes it through the times.

Notation as in `ops.diffusion_process`: times t = 1 ... T counted from 1, t = 0 the data, s < t the next time to visit;
x0_hat and eps_hat are a model's prediction from x_t, z is standard normal noise.

    ancestral:  x_s = mu_ts(x_t, x0_hat) + sqrt(var_ts) z,    var_ts = beta_ts or beta~_ts;  z = 0 if s = 0       (1)
    DDIM:       x_s = a_s x0_hat + sqrt(sigma_s^2 - eta^2 beta~_ts) eps_hat + eta sqrt(beta~_ts) z                (2)
    guidance:   (1 + w) eps(x_t, c) - w eps(x_t)                                                                  (3)

The loop visits any falling times t_1 > t_2 > ... > t_N >= 1 and then 0. It reads the time after t_i, t_(i+1), from the
given times and never computes it from a stride; all coefficients belong to that pair. (2) with eta = 1 is (1) with
beta~_ts; with eta = 0 no noise is drawn, and x_T determines x_0.

A model takes part as `predict_fn`, which returns a `Prediction` of both data and noise, independent of what its network
is trained to predict:

    def predict_fn(x_t, t):
        return predictions.prediction_from_eps(x_t, network(x_t, t), schedule.signal(t), schedule.noise(t))

    x_0 = sample(partial(ddim_step, eta=0.0), predict_fn, schedule, key, x_T, trailing_times(T, 50), clip=(-1, 1))

The noise of the step from t is drawn with `fold_in(key, t)`, a function of the time alone.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.ops import diffusion_process
from gm_jax.ops.diffusion_process import Schedule
from gm_jax.ops.predictions import Prediction, diffuse, per_example, prediction_from_x0
from gm_jax.types import Array, Key

_Kept = TypeVar("_Kept")

# (x_t [B, ...], t [B] int32) -> the model's prediction of data and noise
PredictFn = Callable[[Array, Array], Prediction]
# (key, x_t [B, ...], prediction, log abar_s, log abar_t, scalars) -> x_s [B, ...]
StepFn = Callable[[Key, Array, Prediction, Array, Array], Array]


class Sampler(NamedTuple):
    """How samples are drawn.

    Attributes:
        step_fn: a step of this module, its settings bound.
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


def ancestral_step(
    key: Key,
    x_t: Array,
    prediction: Prediction,
    log_alpha_bar_s: Array,
    log_alpha_bar_t: Array,
    *,
    variance_fn: Callable[[Array, Array], Array],
) -> Array:
    """Draws a sample of p(x_s | x_t), eq. (1); returns the mean itself if s = 0.

    Args:
        key: noise.
        x_t: [B, ...].
        prediction: the model's, from `x_t`.
        log_alpha_bar_s: [B], or a scalar for all; at the next time.
        log_alpha_bar_t: [B], or a scalar for all.
        variance_fn: (log abar_s, log abar_t) -> var_ts: `diffusion_process.transition_variance` is beta,
            `diffusion_process.posterior_variance` is beta~.
    Returns:
        [B, ...] x_s.
    Raises:
        AssertionError: shapes do not fit or an array is not floating.
    Source: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv:2006.11239, algorithm 2.
    """
    mean = diffusion_process.posterior_mean(prediction.x_0, x_t, log_alpha_bar_s, log_alpha_bar_t)
    variance = variance_fn(log_alpha_bar_s, log_alpha_bar_t)
    std = jnp.sqrt(jnp.where(log_alpha_bar_s < 0, variance, 0.0))
    return mean + per_example(std, x_t) * jax.random.normal(key, x_t.shape, x_t.dtype)


def ddim_step(
    key: Key,
    x_t: Array,
    prediction: Prediction,
    log_alpha_bar_s: Array,
    log_alpha_bar_t: Array,
    *,
    eta: float,
) -> Array:
    """Takes a step of DDIM, eq. (2).

    Args:
        key: noise; unused if eta = 0.
        x_t: [B, ...]; only its shape is used, because the prediction contains the rest.
        prediction: the model's, from `x_t`.
        log_alpha_bar_s: [B], or a scalar for all; at the next time.
        log_alpha_bar_t: [B], or a scalar for all.
        eta: the share of new noise, from 0 (none) to 1 (the posterior's standard deviation).
    Returns:
        [B, ...] x_s.
    Raises:
        AssertionError: shapes do not fit or an array is not floating.
        ValueError: `eta` is not from 0 to 1.
    Source: Song, Meng & Ermon, "Denoising Diffusion Implicit Models", ICLR 2021, arXiv:2010.02502, eqs. 12 and 16.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta must be from 0 to 1: got {eta}.")
    chex.assert_equal_shape([x_t, *prediction])
    if eta == 0.0:
        return diffuse(*prediction, *diffusion_process.signal_and_noise(log_alpha_bar_s))
    # sigma_s^2 - eta^2 beta~_ts = sigma_s^2 (1 - fresh): part of the noise at time s is new.
    beta = diffusion_process.transition_variance(log_alpha_bar_s, log_alpha_bar_t)
    fresh = eta**2 * beta / -jnp.expm1(log_alpha_bar_t)
    kept = jnp.maximum(1.0 - fresh, 0.0)
    z = jax.random.normal(key, x_t.shape, x_t.dtype)
    kept, fresh = (per_example(jnp.sqrt(part), x_t) for part in (kept, fresh))
    eps = kept * prediction.eps + fresh * z
    return diffuse(prediction.x_0, eps, *diffusion_process.signal_and_noise(log_alpha_bar_s))


def ancestral(schedule: Schedule, num_steps: int, *, variance_fn: Callable[[Array, Array], Array]) -> Sampler:
    """Makes the sampler of DDPM, at `num_steps` of the T times, evenly spaced; `variance_fn` as in `ancestral_step`."""
    step_fn = partial(ancestral_step, variance_fn=variance_fn)
    return Sampler(step_fn, trailing_times(schedule.num_steps, num_steps))


def ddim(schedule: Schedule, num_steps: int, *, eta: float = 0.0) -> Sampler:
    """Makes the sampler of DDIM, at `num_steps` of the T times, evenly spaced; `eta` as in `ddim_step`."""
    return Sampler(partial(ddim_step, eta=eta), trailing_times(schedule.num_steps, num_steps))


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


def classifier_free_guidance(conditional: Array, unconditional: Array, *, weight: float | Array) -> Array:
    """Combines two predictions by classifier-free guidance with the paper's weight w, eq. (3).

    It applies to eps, x_0, v and score alike, if both predictions are from the same x_t and of the same kind. Other
    libraries call 1 + w the guidance scale.

    Args:
        conditional: [B, ...] prediction given the class.
        unconditional: [B, ...] prediction given no class.
        weight: w; 0 is the conditional model, -1 the unconditional one.
    Returns:
        [B, ...] (1 + w) conditional - w unconditional.
    Raises:
        AssertionError: shapes differ or an array is not floating.
    Source: Ho & Salimans, "Classifier-Free Diffusion Guidance", arXiv:2207.12598, eq. 6.
    """
    chex.assert_equal_shape([conditional, unconditional])
    chex.assert_type([conditional, unconditional], float)
    # In this form w = 0 is the conditional prediction bit for bit.
    return conditional + weight * (conditional - unconditional)


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
