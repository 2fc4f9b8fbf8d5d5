"""Samplers of diffusion models: one step function each, and the one loop that takes it through the times.

Notation: that of `ops.diffusion_process`: times t = 1 ... T counted from 1, t = 0 the data, s < t the next time to be
visited; x0_hat and eps_hat a model's prediction from x_t; z standard normal noise.

    ancestral:  x_s = mu_ts(x_t, x0_hat) + sqrt(var_ts) z,    var_ts one of beta_ts, beta~_ts;  z = 0 if s = 0    (1)
    DDIM:       x_s = a_s x0_hat + sqrt(sigma_s^2 - eta^2 beta~_ts) eps_hat + eta sqrt(beta~_ts) z                (2)
    guidance:   (1 + w) eps(x_t, c) - w eps(x_t)                                                                  (3)

The loop visits any falling times t_1 > t_2 > ... > t_N >= 1 and then 0. The time after t_i is t_(i+1), read off the
given times and never computed from a stride, and every coefficient is of that very pair. (2) with eta = 1 is (1) with
beta~_ts; with eta = 0 nothing is drawn, and x_T determines x_0.

A model takes part as `predict_fn`, which says what it predicts as a whole (`ops.diffusion_process.Prediction`),
whatever its network is trained to predict:

    def predict_fn(x_t, t):
        return diffusion_process.prediction_from_eps(x_t, network(x_t, t), schedule.at(t))

    x_0 = sample(partial(ddim_step, eta=0.0), predict_fn, schedule, key, x_T, trailing_times(T, 50), clip=(-1, 1))

The noise of the step from t is drawn with `fold_in(key, t)`, a function of the time alone.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.ops import diffusion_process
from gm_jax.ops.diffusion_process import Prediction, Schedule
from gm_jax.types import Array, Key

# (x_t [B, ...], t [B] int32) -> what the model says of it
PredictFn = Callable[[Array, Array], Prediction]
# (key, x_t [B, ...], prediction, log abar_s, log abar_t, scalars) -> x_s [B, ...]
StepFn = Callable[[Key, Array, Prediction, Array, Array], Array]


class Trajectory(NamedTuple):
    """What a sampler went through, the N visited times first.

    Attributes:
        x_0: [B, ...] the samples.
        x_t: [N, B, ...] where each step began; x_T first.
        x0_hat: [N, B, ...] what was predicted there of x_0, clipped if the sampler clips.
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
    """A draw of p(x_s | x_t), eq. (1); the mean itself if s = 0.

    Args:
        key: noise.
        x_t: [B, ...].
        prediction: what the model says of `x_t`.
        log_alpha_bar_s: [B], or a scalar for all; at the time to go to.
        log_alpha_bar_t: [B], or a scalar for all.
        variance_fn: (log abar_s, log abar_t) -> var_ts: `diffusion_process.transition_variance` is beta,
            `diffusion_process.posterior_variance` is beta~.
    Returns:
        [B, ...] x_s.
    Raises:
        AssertionError: shapes do not fit or an array is not floating (at trace time).
    Source: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv:2006.11239, algorithm 2.
    """
    mean = diffusion_process.posterior_mean(prediction.x_0, x_t, log_alpha_bar_s, log_alpha_bar_t)
    variance = variance_fn(log_alpha_bar_s, log_alpha_bar_t)
    std = jnp.sqrt(jnp.where(log_alpha_bar_s < 0, variance, 0.0))
    return mean + diffusion_process.per_example(std, x_t) * jax.random.normal(key, x_t.shape, x_t.dtype)


def ddim_step(
    key: Key,
    x_t: Array,
    prediction: Prediction,
    log_alpha_bar_s: Array,
    log_alpha_bar_t: Array,
    *,
    eta: float,
) -> Array:
    """A step of DDIM, eq. (2).

    Args:
        key: noise; unused if eta = 0.
        x_t: [B, ...]; it enters through the prediction alone, and gives the shape.
        prediction: what the model says of `x_t`.
        log_alpha_bar_s: [B], or a scalar for all; at the time to go to.
        log_alpha_bar_t: [B], or a scalar for all.
        eta: how much noise, from 0, none at all, to 1, the posterior's.
    Returns:
        [B, ...] x_s.
    Raises:
        AssertionError: shapes do not fit or an array is not floating (at trace time).
        ValueError: `eta` is not from 0 to 1.
    Source: Song, Meng & Ermon, "Denoising Diffusion Implicit Models", ICLR 2021, arXiv:2010.02502, eqs. 12 and 16.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta must be from 0 to 1: got {eta}.")
    chex.assert_equal_shape([x_t, *prediction])
    if eta == 0.0:
        return diffusion_process.diffuse(*prediction, log_alpha_bar_s)
    # sigma_s^2 - eta^2 beta~_ts = sigma_s^2 (1 - fresh): x_s is x_0 and noise at time s, part of which is new.
    beta = diffusion_process.transition_variance(log_alpha_bar_s, log_alpha_bar_t)
    fresh = eta**2 * beta / -jnp.expm1(log_alpha_bar_t)
    kept = jnp.maximum(1.0 - fresh, 0.0)
    z = jax.random.normal(key, x_t.shape, x_t.dtype)
    kept, fresh = (diffusion_process.per_example(jnp.sqrt(part), x_t) for part in (kept, fresh))
    return diffusion_process.diffuse(prediction.x_0, kept * prediction.eps + fresh * z, log_alpha_bar_s)


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
    """Samples x_0 from x_T, by one step and one prediction a time.

    Args:
        step_fn: `partial(ancestral_step, variance_fn=...)` or `partial(ddim_step, eta=...)`.
        predict_fn: (x_t [B, ...], t [B] int32) -> Prediction.
        schedule: of T steps.
        key: the step from t draws with `fold_in(key, t)`.
        x_T: [B, ...] where the first step begins: standard normal noise if the first time is T, and data diffused to
            that time if it is an earlier one.
        times: t_1 > t_2 > ... > t_N, each in 1 ... T; what `trailing_times` and its neighbours give. After t_N comes 0.
        clip: the range of the data, to which each predicted x_0 is cut, and eps made to fit it again; None leaves the
            prediction as it is. The two are different samplers: with a network trained on images in [-1, 1], and noise
            prediction's large errors in x_0 at large t, clipping is part of the method.
    Returns:
        [B, ...] x_0, in the dtype of `x_T`.
    Raises:
        AssertionError: shapes do not fit or `x_T` is not floating (at trace time).
        ValueError: the times do not fall, or leave 1 ... T.
    """
    return _reverse(step_fn, predict_fn, schedule, key, x_T, times, clip=clip, keep=False)[0]


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
    """The same samples as `sample`, and the way to them: for pictures, as it keeps 2 N arrays of the samples' size.

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
    x_0, (x_t, x0_hat) = _reverse(step_fn, predict_fn, schedule, key, x_T, times, clip=clip, keep=True)
    return Trajectory(x_0, x_t, x0_hat)


def uniform_times(num_steps: int, num_times: int) -> np.ndarray:
    """N times at equal distances from T down to 1, both included.

    Args:
        num_steps: T.
        num_times: N, at most T.
    Returns:
        [N] int32, falling.
    Raises:
        ValueError: `num_times` is not in 1 ... T.
    """
    _check_num_times(num_steps, num_times)
    return np.rint(np.linspace(num_steps, 1, num_times)).astype(np.int32)


def trailing_times(num_steps: int, num_times: int) -> np.ndarray:
    """N times at equal distances from T down to T / N: steps of one length, the last one to 0 included.

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
    _check_num_times(num_steps, num_times)
    return np.rint(np.arange(num_times, 0, -1) * (num_steps / num_times)).astype(np.int32)


def quadratic_times(num_steps: int, num_times: int) -> np.ndarray:
    """N times from T down to 1, both included, whose square roots are at equal distances: most of them near the data.

    Args:
        num_steps: T.
        num_times: N, at most T.
    Returns:
        [N] int32, falling; where the roots would meet within one time, the next free one is taken.
    Raises:
        ValueError: `num_times` is not in 1 ... T.
    Source: Song, Meng & Ermon, ICLR 2021, arXiv:2010.02502, appendix D.
    """
    _check_num_times(num_steps, num_times)
    squares = np.rint(np.square(np.linspace(np.sqrt(num_steps), 1.0, num_times)))
    return np.maximum(squares, np.arange(num_times, 0, -1)).astype(np.int32)


def classifier_free_guidance(conditional: Array, unconditional: Array, *, weight: float | Array) -> Array:
    """Classifier-free guidance by the paper's weight w, eq. (3).

    It holds for eps, x_0, v and score alike, as long as both predictions are of the same x_t and kind.

    Args:
        conditional: [B, ...] prediction given the class.
        unconditional: [B, ...] prediction given none.
        weight: w; 0 is the conditional model, -1 the unconditional one.
    Returns:
        [B, ...] (1 + w) conditional - w unconditional.
    Raises:
        AssertionError: shapes differ or an array is not floating (at trace time).
    Source: Ho & Salimans, "Classifier-Free Diffusion Guidance", arXiv:2207.12598, eq. 6.
    """
    chex.assert_equal_shape([conditional, unconditional])
    chex.assert_type([conditional, unconditional], float)
    # In this form w = 0 is the conditional prediction bit for bit.
    return conditional + weight * (conditional - unconditional)


def classifier_free_guidance_by_scale(conditional: Array, unconditional: Array, *, scale: float | Array) -> Array:
    """The same by what other libraries call the guidance scale, 1 + w.

    Args:
        conditional: [B, ...] prediction given the class.
        unconditional: [B, ...] prediction given none.
        scale: 1 + w; 1 is the conditional model, 0 the unconditional one.
    Returns:
        [B, ...] unconditional + scale (conditional - unconditional).
    Raises:
        AssertionError: shapes differ or an array is not floating (at trace time).
    """
    return classifier_free_guidance(conditional, unconditional, weight=scale - 1.0)


def _reverse(
    step_fn: StepFn,
    predict_fn: PredictFn,
    schedule: Schedule,
    key: Key,
    x_T: Array,
    times: Sequence[int] | np.ndarray,
    *,
    clip: tuple[float, float] | None,
    keep: bool,
) -> tuple[Array, tuple[Array, Array] | None]:
    """x_0, and where `keep` is set every x_t and predicted x_0 on the way."""
    chex.assert_type(x_T, float)
    times = _checked_times(times, schedule.num_steps)
    # Rounded to the dtype of x only here, so that the loop carries one dtype.
    log_alpha_bar_t = schedule.at(times).astype(x_T.dtype)
    log_alpha_bar_s = schedule.at(np.append(times[1:], 0)).astype(x_T.dtype)

    def step(x_t: Array, now: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, Array] | None]:
        t, log_alpha_bar_s, log_alpha_bar_t = now
        prediction = predict_fn(x_t, jnp.full(x_t.shape[:1], t))
        if clip is not None:
            x0_hat = jnp.clip(prediction.x_0, *clip)
            prediction = diffusion_process.prediction_from_x0(x_t, x0_hat, log_alpha_bar_t)
        x_s = step_fn(jax.random.fold_in(key, t), x_t, prediction, log_alpha_bar_s, log_alpha_bar_t)
        return x_s.astype(x_t.dtype), (x_t, prediction.x_0) if keep else None

    return jax.lax.scan(step, x_T, (jnp.asarray(times), log_alpha_bar_s, log_alpha_bar_t))


def _checked_times(times: Sequence[int] | np.ndarray, num_steps: int) -> np.ndarray:
    times = np.asarray(times)
    if times.ndim != 1 or times.size == 0 or not np.issubdtype(times.dtype, np.integer):
        raise ValueError(f"times must be a vector of at least one integer: got {times.dtype} {times.shape}.")
    if np.any(np.diff(times) >= 0) or times[0] > num_steps or times[-1] < 1:
        raise ValueError(f"times must fall from at most {num_steps} to at least 1: got {times}.")
    return times.astype(np.int32)


def _check_num_times(num_steps: int, num_times: int) -> None:
    if not 1 <= num_times <= num_steps:
        raise ValueError(f"{num_times} times cannot be chosen among 1 ... {num_steps}.")
