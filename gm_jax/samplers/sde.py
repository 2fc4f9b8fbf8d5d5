"""Samplers of a Gaussian path that draw new noise: the reverse SDE, predictor-corrector and annealed Langevin.

Notation as in `ops.gaussian_path`: (x_0, eps) is a model's prediction from x_t, u its velocity, score = -eps / s; s < t
is the next time, z standard normal noise, D the dimension of an example.

    reverse SDE:     dx = (f x - g^2 score) dt + g dW = (u - g^2 / 2 score) dt + g dW,  backwards in t        (1)
    Euler-Maruyama:  x_s = x_t - (t - s) (u - g^2 / 2 score) + g sqrt(t - s) z                                (2)
    ancestral:       x_s ~ q(x_s | x_t, x_0), a normal of variance (s_s / s_t)^2 (s_t^2 - (a_t / a_s)^2 s_s^2)   (3)
    corrector:       a Langevin step of length e at the time s, e = 4 (r sqrt(D) / |score|)^2, at most s^2    (4)
    annealed:        M Langevin steps of length e = k s^2 at each of the times                                (5)

The norm of the score in (4) is that of one example, and sqrt(D) is the norm of its noise. The reference code averages
both over the batch, and a sample then depends on its neighbours. An example with a small score would take a long step:
a step of s^2 already leaves the variance of a normal of standard deviation s a third too large.

The noise of the step i is drawn with `fold_in(key, i)`. All functions take x [B, ...] at the first of N falling times,
noise of standard deviation s, and return it at the last; `ode.denoise` ends at the data.

Source: Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021,
arXiv:2011.13456, eq. 6 for (1), algorithm 1 and appendix G for (4); Song & Ermon, "Generative Modeling by Estimating
Gradients of the Data Distribution", NeurIPS 2019, arXiv:1907.05600, algorithm 1 for (5).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.ops.gaussian_path import GaussianPath
from gm_jax.ops.predictions import diffuse, per_example, score
from gm_jax.ops.reductions import sum_except_batch
from gm_jax.samplers.langevin import gradient_step
from gm_jax.samplers.ode import PredictFn, predict_at, steps_of
from gm_jax.types import Array, Key

StepFn = Callable[[Key, Array, Array, Array], Array]  # (key, x_t, t, s) -> x_s


def euler_maruyama(key: Key, predict_fn: PredictFn, path: GaussianPath, x: Array, times: Array) -> Array:
    """Takes the steps (2), with N - 1 evaluations.

    Args:
        key: noise.
        predict_fn: the model.
        path: its path; g^2 must be finite at all times but the last.
        x: [B, ...] at times[0].
        times: [N] falling.
    Returns:
        [B, ...] x at times[-1].
    """
    return _steps(_euler_maruyama_step(predict_fn, path), key, x, times)


def ancestral(key: Key, predict_fn: PredictFn, path: GaussianPath, x: Array, times: Array) -> Array:
    """Takes the steps (3), with N - 1 evaluations; arguments as for `euler_maruyama`.

    On a variance-preserving path they are DDPM's with the posterior's variance.
    """

    def step(key: Key, x: Array, t: Array, s: Array) -> Array:
        a_t, s_t, a_s, s_s = path.signal(t), path.noise(t), path.signal(s), path.noise(s)
        x_0 = predict_at(predict_fn, x, t).x_0
        kept = jnp.square(s_s / s_t)
        variance = jnp.maximum(jnp.square(s_t) - jnp.square(a_t / a_s * s_s), 0.0)
        mean = diffuse(x_0, x, a_s * variance / jnp.square(s_t), a_t / a_s * kept)
        return mean + jnp.sqrt(kept * variance) * jax.random.normal(key, x.shape, x.dtype)

    return _steps(step, key, x, times)


def predictor_corrector(
    key: Key,
    predict_fn: PredictFn,
    path: GaussianPath,
    x: Array,
    times: Array,
    *,
    snr: float = 0.16,
    corrector_steps: int = 1,
) -> Array:
    """Takes a step (2) to each time and then steps (4) at it.

    Args:
        key: noise.
        predict_fn: the model.
        path: its path.
        x: [B, ...] at times[0].
        times: [N] falling.
        snr: r, the ratio of the step along the score to its noise: 0.16 in the paper for VE and VP.
        corrector_steps: M, steps (4) at each time.
    Returns:
        [B, ...] x at times[-1], after (1 + M) (N - 1) evaluations.
    Raises:
        ValueError: `snr` is not above 0, or M is below 1.
    """
    if snr <= 0.0 or corrector_steps < 1:
        raise ValueError(f"a corrector needs snr above 0 and at least 1 step: got {snr} and {corrector_steps}.")
    predict = _euler_maruyama_step(predict_fn, path)
    size = math.prod(x.shape[1:])

    def correct(key: Key, x: Array, s: Array) -> Array:
        s_s = path.noise(s)
        gradient = -score(predict_at(predict_fn, x, s).eps, s_s)
        squared_norm = sum_except_batch(jnp.square(gradient))
        length = jnp.minimum(4.0 * snr**2 * size / jnp.maximum(squared_norm, 1e-12), jnp.square(s_s))
        return gradient_step(key, x, gradient, per_example(length, x), 1.0)

    def step(key: Key, x: Array, t: Array, s: Array) -> Array:
        predict_key, correct_key = jax.random.split(key)
        x = predict(predict_key, x, t, s).astype(x.dtype)

        def again(i: Array, x: Array) -> Array:
            return correct(jax.random.fold_in(correct_key, i), x, s).astype(x.dtype)

        return jax.lax.fori_loop(0, corrector_steps, again, x)

    return _steps(step, key, x, times)


def annealed_langevin(
    key: Key,
    predict_fn: PredictFn,
    path: GaussianPath,
    x: Array,
    times: Array,
    *,
    steps_per_time: int = 100,
    step_size: float = 0.2,
) -> Array:
    """Takes the steps (5), with M N evaluations; between times x is scaled as the signal is.

    NCSN's e = 2e-5 s^2 / s_N^2 with s_N = 0.01 is k = 0.2; NCSNv2's has k = 0.062, five steps and 232 times, and ends
    by `ode.denoise`.

    Args:
        key: noise.
        predict_fn: the model.
        path: its path.
        x: [B, ...] at times[0].
        times: [N] falling.
        steps_per_time: M.
        step_size: k, the length of a step in units of s^2; below 4, and with a bias of 1 / (1 - k / 4) in the variance
            of a normal of standard deviation s.
    Returns:
        [B, ...] x at times[-1].
    Raises:
        ValueError: `step_size` is not between 0 and 4.
    """
    if not 0.0 < step_size < 4.0:
        raise ValueError(f"a Langevin step must be above 0 and below 4 in units of the variance: got {step_size}.")
    times = jnp.asarray(times, x.dtype)

    def level(x: Array, at: tuple[Array, Array, Array]) -> tuple[Array, None]:
        number, t, before = at
        x = x * (path.signal(t) / path.signal(before))
        length = step_size * jnp.square(path.noise(t))

        def step(i: Array, x: Array) -> Array:
            gradient = -score(predict_at(predict_fn, x, t).eps, path.noise(t))
            step_key = jax.random.fold_in(key, number * steps_per_time + i)
            return gradient_step(step_key, x, gradient, length, 1.0).astype(x.dtype)

        return jax.lax.fori_loop(0, steps_per_time, step, x), None

    before = jnp.concatenate([times[:1], times[:-1]])
    return jax.lax.scan(level, x, (jnp.arange(len(times)), times, before))[0]


def _euler_maruyama_step(predict_fn: PredictFn, path: GaussianPath) -> StepFn:
    def step(key: Key, x: Array, t: Array, s: Array) -> Array:
        prediction = predict_at(predict_fn, x, t)
        g2 = path.squared_diffusion(t)
        drift = path.velocity(*prediction, t) - 0.5 * g2 * score(prediction.eps, path.noise(t))
        return x + (s - t) * drift + jnp.sqrt(g2 * (t - s)) * jax.random.normal(key, x.shape, x.dtype)

    return step


def _steps(step_fn: StepFn, key: Key, x: Array, times: Array) -> Array:
    """Takes a step from each time to the next, in one scan."""

    def step(x: Array, at: tuple[Array, tuple[Array, Array]]) -> tuple[Array, None]:
        i, (t, s) = at
        return step_fn(jax.random.fold_in(key, i), x, t, s).astype(x.dtype), None

    ends = steps_of(times, x)
    return jax.lax.scan(step, x, (jnp.arange(len(ends[0])), ends))[0]
